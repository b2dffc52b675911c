"""Kinds of values in a config: parts that have keys, and texts, where a number stands for neither."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from align_detr.errors import ConfigError

_SECTIONS = ("model", "train", "dataloader")
# parts of a config that are built, by their dotted keys; null is judged where they are used
_NODES = (
    *("optimizer", "optimizer.params", "optimizer.params.lr_factors", "lr_multiplier"),
    *("dataloader.train", "dataloader.train.mapper", "dataloader.test", "dataloader.test.mapper"),
    "dataloader.evaluator",
)
_TEXTS: Mapping[str, str] = {
    "train.init_checkpoint": "a file or URL",
    "dataloader.train.dataset": "the name of a data set or a list of names",
    "dataloader.test.dataset": "the name of a data set or a list of names",
    "dataloader.evaluator.output_dir": "a folder",
}


def require_sections(cfg: DictConfig, names: Sequence[str] = _SECTIONS, prefix: str = "") -> None:
    """Raise ConfigError for a part `prefix` + name of a config that is null, a number or a text."""
    for name in names:
        if name in cfg:
            if cfg[name] is None:
                raise ConfigError(f"{prefix}{name} is null, but a run needs it: leave the config's own.")
            _require_node(cfg[name], f"{prefix}{name}")


def check_kinds(cfg: DictConfig) -> None:
    """Raise ConfigError for a number or text in place of a part of a config, and for a number in place of a text."""
    for key in _NODES:
        _require_node(_select(cfg, key), key)
    for key, wanted in _TEXTS.items():
        if isinstance(value := _select(cfg, key), (int, float)):
            raise ConfigError(f"{key} is {value!r}, but must be {wanted}: set it to such a text.")


def _require_node(value: Any, key: str) -> None:
    if isinstance(value, (str, int, float)):  # bool among them
        raise ConfigError(f"{key} is {value!r}, but must be a part with keys of its own: leave the config's own.")


def _select(cfg: Any, key: str) -> Any:
    """Return the value at a dotted key; None if it, or a node on the way to it, is not there or no node."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or OmegaConf.is_missing(node, part):
            return None
        node = node.get(part)
    return node
