"""The configs that come with the package, by name, from a checkout and from an installed wheel.

A name is a path without its root: "detr/detr_r50_500ep.py" is configs/detr/detr_r50_500ep.py, and "TSP/x.py" is
projects/TSP/configs/x.py. The ".py" may be left out. A wheel keeps both folders, with the same layout, inside the
package, so that relative imports between config files mean the same in both.
"""

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
    """Folder that holds configs/ and projects/: the package in a wheel, else the checkout around it."""
    return _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


def _config_files(root: Path) -> dict[str, Path]:
    """All config files under `root`, the shared parts in common/ too, by name."""
    folders = {"": root / "configs"}
    folders.update({f"{folder}/": root / "projects" / folder / "configs" for folder in PROJECTS.values()})
    return {
        prefix + path.relative_to(folder).as_posix(): path
        for prefix, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }


def names() -> list[str]:
    """Names of the configs that can be trained, sorted; the parts they share (in common/) are not among them."""
    return sorted(name for name in _config_files(_root()) if "common" not in name.split("/"))


def _suggestion(name: str, known: list[str]) -> str:
    """The known names nearest to `name`, by the whole name or by the file's, as the end of a sentence."""
    files = {known_name.rpartition("/")[2]: known_name for known_name in known}
    nearest = get_close_matches(name, known, n=3, cutoff=0.6)
    nearest += [files[file] for file in get_close_matches(name.rpartition("/")[2], files, n=3, cutoff=0.6)]
    if nearest:
        return "did you mean " + " or ".join(dict.fromkeys(nearest)) + "?"
    some = known[:: max(1, -(-len(known) // 5))]  # five at most, from all over the list
    return f"there are {', '.join(some)} (align_detr.model_zoo.names() lists all {len(known)})."


def config_path(name: str) -> Path:
    """Path of the config file called `name`; raises ConfigError, with the nearest names, for an unknown one."""
    files = _config_files(_root())
    wanted = name if name.endswith(".py") else f"{name}.py"
    if wanted not in files:
        raise ConfigError(f"There is no config named {name}: {_suggestion(wanted, names())}")
    return files[wanted]


def get_config(name: str) -> "DictConfig":
    """Load the config called `name`; raises ConfigError, with the nearest names, for an unknown one."""
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(config_path(name)))


def get(name: str, *, checkpoint: str | Path = "", device: str | None = None) -> "nn.Module":
    """Build the model of the config called `name`, in training mode.

    Weights are read from the local file `checkpoint` (one of this project's trainer, a plain state dict or an official
    release), if given, without running code from it, and have to fit the model exactly. `device` is the config's own
    unless given. Raises ConfigError for an unknown name, and for a checkpoint that is missing, cannot be read or
    belongs to another model.
    """
    from detectron2.config import instantiate

    cfg = get_config(name)
    model = instantiate(cfg.model)
    if checkpoint:
        _load_weights(model, Path(checkpoint), name)
    return model.to(device or cfg.get("train", {}).get("device", "cpu"))


def _load_weights(model: "nn.Module", checkpoint: Path, name: str) -> None:
    from align_detr.checkpoint.conversion import convert
    from align_detr.checkpoint.restricted import read_checkpoint

    if not checkpoint.is_file():
        raise ConfigError(f"There is no checkpoint {checkpoint}: pass the path of a local .pth file.")
    state = _tensors(read_checkpoint(str(checkpoint)), checkpoint)
    try:
        model.load_state_dict(convert(state, num_classes=getattr(model, "num_classes", None)))
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise ConfigError(f"The checkpoint {checkpoint} does not fit the model of {name}: {first[:300]}") from error


def _tensors(content: Any, checkpoint: Path) -> "dict[str, Tensor]":
    """The state dict in a file's content, bare or under "model"; arrays become tensors."""
    import numpy as np
    import torch

    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ConfigError(f"{checkpoint} holds a {type(state).__name__}, not a dictionary of weights.")
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ConfigError(
                f"{checkpoint} is not a dictionary of weights: its entry {key!r} is a {type(value).__name__}."
            )
    return tensors


list = names  # noqa: A001  (the name detectron2 users look for; last, so that annotations above mean the built-in)
