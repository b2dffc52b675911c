"""The configs that come with the package, by name, from a checkout and from an installed wheel.

A name is a path without its root: "detr/detr_r50_500ep.py" is configs/detr/detr_r50_500ep.py, and "TSP/x.py" is
projects/TSP/configs/x.py. The ".py" may be left out. A wheel keeps both folders, with the same layout, inside the
package, so that relative imports between config files mean the same in both.
"""

import builtins
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from align_detr.errors import ConfigError
from align_detr.projects.table import PROJECTS

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

_PACKAGE = Path(__file__).resolve().parent


def _root() -> Path:
    """Return the folder that holds configs/ and projects/: the package in a wheel, else the checkout around it."""
    return _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


def _config_files(root: Path) -> dict[str, Path]:
    """Return all config files under `root` by name, the shared parts in common/ included."""
    folders = {"": root / "configs"}
    folders.update({f"{folder}/": root / "projects" / folder / "configs" for folder in PROJECTS.values()})
    return {
        prefix + path.relative_to(folder).as_posix(): path
        for prefix, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }


def names() -> builtins.list[str]:
    """Return the sorted names of the configs that can be trained, without the parts that they share (in common/)."""
    return sorted(name for name in _config_files(_root()) if "common" not in name.split("/"))


def _suggestion(name: str, known: Sequence[str]) -> str:
    """Return the known names nearest to `name`, by the whole name or by the file's, as the end of a sentence."""
    files = {known_name.rpartition("/")[2]: known_name for known_name in known}
    nearest = get_close_matches(name, known, n=3, cutoff=0.6)
    nearest += [files[file] for file in get_close_matches(name.rpartition("/")[2], files, n=3, cutoff=0.6)]
    if nearest:
        return "did you mean " + " or ".join(dict.fromkeys(nearest)) + "?"
    some = known[:: max(1, -(-len(known) // 5))]  # at most five, spread over the list
    return f"there are {', '.join(some)} (align_detr.model_zoo.names() lists all {len(known)})."


def config_path(name: str) -> Path:
    """Return the path of the config called `name`; raise ConfigError, with the nearest names, for an unknown one."""
    files = _config_files(_root())
    wanted = name if name.endswith(".py") else f"{name}.py"
    if wanted not in files:
        raise ConfigError(f"There is no config named {name}: {_suggestion(wanted, names())}")
    return files[wanted]


def get_config(name: str) -> "DictConfig":
    """Load the config called `name`; raise ConfigError, with the nearest names, for an unknown one."""
    from detectron2.config import LazyConfig  # not at the top: names are listed without torch and detectron2

    return LazyConfig.load(str(config_path(name)))


def get(name: str, *, checkpoint: str | Path = "", device: str | None = None, averaged: bool = True) -> "nn.Module":
    """Build the model of the config called `name`, in training mode.

    Weights are read from the local file `checkpoint`, if given (one of this project's trainer, a plain state dict or
    an official release), without running code from it, and have to fit the model exactly. They are the averaged ones if
    the file has such; with `averaged=False` the plain ones. `device` defaults to that of the config. Raise ConfigError
    for an unknown name, and for a checkpoint that is missing, cannot be read or belongs to another model.
    """
    from detectron2.config import instantiate

    cfg = get_config(name)
    model = instantiate(cfg.model)
    if checkpoint:
        # imported here, as these need torch
        from align_detr.checkpoint.contents import read_weights
        from align_detr.checkpoint.loading import load_weights

        weights = read_weights(checkpoint, averaged=averaged)
        try:
            load_weights(model, weights, strict=True).require_nothing_left_over()
        except ConfigError as error:
            raise ConfigError(f"The checkpoint does not fit the model of {name}: {error}") from error
    return model.to(device or cfg.get("train", {}).get("device", "cpu"))


list = names  # the name that detectron2 users look for
