"""Values that a config states itself, at any depth."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def stated_values(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, DictConfig, Any]]:
    """Yield the named values below `node`, whose dotted name is `key`: dotted name, the node around it, the value.

    Values that follow from another key, and those that are missing, are left out.
    """
    for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        if isinstance(value, DictConfig | ListConfig):
            yield from stated_values(value, f"{key}.{name}")
        elif isinstance(node, DictConfig):
            yield f"{key}.{name}", node, value
