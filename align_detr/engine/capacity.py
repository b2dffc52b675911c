"""How many objects per image a model can find, beside how many the data has."""

import logging
from collections.abc import Iterable, Iterator

from omegaconf import DictConfig

from align_detr.data import load_dataset
from align_detr.data.lazy_records import count_objects
from align_detr.stated_values import stated_values

logger = logging.getLogger(__name__)

_LIMITS = ("num_queries", "num_one_to_one", "num_detections")


def check_capacity(model: DictConfig, names: Iterable[str]) -> None:
    """Warn, once, where images of the data sets have more objects than `model`, a config, has queries or detections.

    Crowd regions are no objects. A model whose config states no such number, as an R-CNN's, passes.
    """
    limits, names = dict(object_limits(model)), list(dict.fromkeys(names))
    if not limits or not names:
        return
    most = min(limits.values())
    counts = count_objects(load_dataset(names))
    beyond = counts[counts > most]
    if len(beyond):
        largest = int(beyond.max())
        keys = [f"{key} (it allows {limit})" for key, limit in limits.items() if limit < largest]
        logger.warning(
            "In %s, %d images have more objects, up to %d, than the model can find per image: raise %s.",
            ", ".join(names),
            len(beyond),
            largest,
            " and ".join(keys),
        )


def object_limits(model: DictConfig) -> Iterator[tuple[str, int]]:
    """Yield the keys of a model's config that bound the objects found per image, and their bounds.

    Keys that follow from another key are left out. Every query counts once per learned pattern.
    """
    for key, node, value in stated_values(model, "model"):
        name = key.rpartition(".")[2]
        if name in _LIMITS and type(value) is int:
            yield key, value * (node.get("num_patterns", 1) if name == "num_queries" else 1)
