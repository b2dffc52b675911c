"""A detector's parts: its config, the class names, how it looks at an image."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, ListConfig, OmegaConf

from align_detr.data.names import dataset_names
from align_detr.engine.data_config import class_count_keys
from align_detr.errors import ConfigError
from align_detr.inference.classes import Classes
from align_detr.inference.views import TestView

logger = logging.getLogger(__name__)

_COCO = "coco_2017_val"  # whose classes detectron2 knows without reading a file


def set_class_count(cfg: DictConfig, count: int) -> None:
    """Set the model's number of classes in a config, wherever it stands."""
    for key in class_count_keys(cfg.model):
        OmegaConf.update(cfg, key, count)


def classes_of(cfg: DictConfig, num_classes: int, names: Sequence[str] | None) -> Classes:
    """Return the classes of a model, with the names of its file of weights, else of its config.

    The config's are `train.class_names`, or those of its test data if that is registered; COCO's 80 are known without
    its files. Without any, a class is named by its index. Category ids come from the test data, or are COCO's.
    """
    test = _test_loader(cfg)
    known = [] if test is None else [name for name in dataset_names(test) if name in DatasetCatalog.list()]
    candidates = [names, (cfg.get("train") or {}).get("class_names"), *map(_names_of, known)]
    found = next((list(x) for x in candidates if x is not None and len(x) == num_classes), None)
    if names is not None and found != list(names):
        raise ConfigError(
            f"The weights name {len(names)} classes, but the config's model has {num_classes}: set "
            f"model.head.num_classes={len(names)}, or pass the config of their training."
        )
    if found is None:
        return Classes([str(k) for k in range(num_classes)])
    for name in [*known, _COCO]:
        if _names_of(name) == found:
            ids: Mapping[int, int] = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") or {}
            return Classes(found, {index: category for category, index in ids.items()})
    return Classes(found)


def _test_loader(cfg: DictConfig) -> DictConfig | None:
    """Return the node of the test data, the first of several."""
    loader: Any = (cfg.get("dataloader") or {}).get("test")
    return loader[0] if isinstance(loader, ListConfig) and loader else loader


def _names_of(name: str) -> list[str] | None:
    names = MetadataCatalog.get(name).get("thing_classes")
    return None if names is None else list(names)


def read_test_view(cfg: DictConfig) -> TestView:
    """Return what the config's test mapper does to an image; an image stays as it is where there is none."""
    loader = _test_loader(cfg)
    node = None if loader is None else loader.get("mapper")
    mapper: Any = instantiate(node) if isinstance(node, DictConfig) else node
    augmentations = getattr(mapper, "augmentations", None)
    if augmentations is None:
        logger.warning(
            "The config has no dataloader.test.mapper with augmentations: images go into the model in their own size."
        )
        return TestView()
    return TestView(
        list(getattr(augmentations, "augs", augmentations)),
        getattr(mapper, "image_format", "RGB"),
        getattr(mapper, "white_level", None),
    )
