"""The config that training left in a file of weights, of which only what is data is taken."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import Augmentation
from omegaconf import DictConfig, OmegaConf
from torch import nn

from align_detr.checkpoint.contents import NO_CLASS_NAME, Weights, is_class_name
from align_detr.checkpoint.trusted_config import check_parts, config_beside, model_config
from align_detr.data import DetrMapper
from align_detr.data.image_size import follow_test_mapper
from align_detr.engine.data_config import DEFAULT_CONFIG, class_count_keys
from align_detr.errors import AlignDetrError, ConfigError
from align_detr.lazy_config import check_overrides, load_config, settle


def config_in_file(weights: Weights, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config that training left in a file of weights, else in config.yaml beside it, without trusting it.

    From it come the model, the class names and the mapper of the test data, to which the sizes of training are scaled;
    all else is that of `quickstart/your_data.py`, with `overrides` ("key=value"). Raise ConfigError for a file without
    a config, and for a config that names anything but models and resizes.
    """
    text = weights.config if weights.config is not None else config_beside(weights.path)
    if text is None:
        raise ConfigError(
            f"{weights.path} does not hold the config of its training, and no config.yaml is beside it: pass one, as "
            "in Detector('dino/dino_r50_4scale_12ep.py', weights=...), or --config-file."
        )
    trusted = model_config(text, weights.path)
    cfg = load_config(DEFAULT_CONFIG)
    cfg.model = trusted.model
    check_parts(cfg.model, weights.path)
    class_count_keys(cfg.model)
    test: Any = OmegaConf.select(trusted, "dataloader.test")
    test = test[0] if OmegaConf.is_list(test) and test else test
    mapper = test.get("mapper") if OmegaConf.is_dict(test) else None
    if mapper is not None:
        _check_mapper(mapper, weights.path)
        follow_test_mapper(cfg.dataloader, mapper)
    cfg.train.class_names = weights.class_names or _class_names(trusted, weights.path)
    check_overrides(cfg, overrides)
    cfg = LazyConfig.apply_overrides(cfg, list(overrides))
    settle(cfg)
    return cfg


def build_untrusted(cfg: DictConfig, path: str) -> nn.Module:
    """Build the model of a config out of the file `path`; raise ConfigError if its parts do not fit each other."""
    model = _built(cfg.model, path)
    if not isinstance(model, nn.Module) or not isinstance(getattr(model, "num_classes", None), int):
        raise ConfigError(
            f"The config in {path} describes a {type(model).__name__}, which is no detector: name the config yourself."
        )
    return model


def _check_mapper(node: Any, path: str) -> None:
    """Raise ConfigError unless `node` describes a DetrMapper with detectron2's augmentations."""
    check_parts(node, path)
    mapper = _built(node, path)
    if not isinstance(mapper, DetrMapper) or not all(isinstance(a, Augmentation) for a in mapper.augmentations.augs):
        raise ConfigError(
            f"The config in {path} has a dataloader.test.mapper that is no DetrMapper with augmentations: name the "
            "config yourself."
        )


def _built(node: Any, path: str) -> Any:
    """Return what a node of listed parts describes."""
    try:
        return instantiate(node)
    except AlignDetrError:
        raise
    except Exception as error:  # constructors raise errors of any kind for arguments of another type
        text = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"The config in {path} cannot be built ({type(error).__name__}: {text}): name the config yourself."
        ) from error


def _class_names(trusted: DictConfig, path: str) -> list[str] | None:
    """Return the names of the classes that a config states."""
    content: Any = OmegaConf.to_container(trusted)
    names = content.get("train", {}).get("class_names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and is_class_name(name) for name in names):
        raise ConfigError(
            f"The config in {path} has train.class_names that are no list of texts, or one {NO_CLASS_NAME}: save the "
            "names with the weights again."
        )
    return names
