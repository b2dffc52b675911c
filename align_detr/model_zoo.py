"""The configs that come with the package, by name, from a checkout and from an installed wheel.

A name is a path without its root: "detr/detr_r50_500ep.py" is configs/detr/detr_r50_500ep.py, and "TSP/x.py" is
projects/TSP/configs/x.py. The ".py" may be left out. A wheel keeps both folders, with the same layout, inside the
package, so that relative imports between config files mean the same in both.
"""

import builtins
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_detr.errors import ConfigError
from align_detr.projects.table import PROJECTS

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor, nn

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


def get(name: str, *, checkpoint: str | Path = "", device: str | None = None) -> "nn.Module":
    """Build the model of the config called `name`, in training mode.

    Weights are read from the local file `checkpoint`, if given (one of this project's trainer, a plain state dict or
    an official release), without running code from it, and have to fit the model exactly. `device` defaults to that of
    the config. Raise ConfigError for an unknown name, and for a checkpoint that is missing, cannot be read or belongs
    to another model.
    """
    from detectron2.config import instantiate

    cfg = get_config(name)
    model = instantiate(cfg.model)
    if checkpoint:
        _load_weights(model, Path(checkpoint), name)
    return model.to(device or cfg.get("train", {}).get("device", "cpu"))


def _load_weights(model: "nn.Module", checkpoint: Path, name: str) -> None:
    """Load the file `checkpoint` into `model`; raise ConfigError unless it fits exactly."""
    # imported here and in `_tensors`, as they need torch
    from align_detr.checkpoint.conversion import convert
    from align_detr.checkpoint.restricted import read_checkpoint

    if not checkpoint.is_file():
        raise ConfigError(f"There is no checkpoint {checkpoint}: pass the path of a local .pth file.")
    state = _tensors(read_checkpoint(str(checkpoint)), checkpoint)
    try:
        model.load_state_dict(convert(state, num_classes=getattr(model, "num_classes", None)))
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip(" .")
        raise ConfigError(
            f"The checkpoint {checkpoint} does not fit the model of {name} ({first[:300]}): name the config of its "
            "training."
        ) from error


def _tensors(content: Any, checkpoint: Path) -> "dict[str, Tensor]":
    """Return the state dict in a file's content, bare or under "model", with arrays as tensors."""
    import numpy as np
    import torch

    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ConfigError(f"{checkpoint} holds a {type(state).__name__}: pass a file with a dictionary of weights.")
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ConfigError(
                f"{checkpoint} is no dictionary of weights, as its entry {key!r} is a {type(value).__name__}: "
                "pass a file with one."
            )
    return tensors


list = names  # the name that detectron2 users look for
