"""A detector's config: of the model zoo or a file, out of a file of weights, and as training needs it."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from align_detr.checkpoint.contents import Weights
from align_detr.checkpoint.trusted_config import model_config
from align_detr.engine.data_config import DEFAULT_CONFIG
from align_detr.errors import ConfigError
from align_detr.lazy_config import REQUIRED, load_config

_MAPPERS = ("align_detr.data.DetrMapper", "align_detr.data.mapper.DetrMapper")
_TRANSFORMS = ("RandomFlip", "ResizeShortestEdge", "RandomCrop")  # of detectron2.data.transforms
_FOLDERS = ("detectron2.data.transforms", "detectron2.data.transforms.augmentation_impl")


def named_config(config: str | Path | DictConfig) -> DictConfig:
    """Return a config by path or model-zoo name, or a copy of a loaded one; raise ConfigError for one without model."""
    if not isinstance(config, DictConfig):
        return load_config(str(config))
    if "model" not in config:
        raise ConfigError("The config has no node 'model': pass a whole config, as model_zoo.get_config returns it.")
    return config.copy()


def config_in_file(weights: Weights) -> DictConfig:
    """Return the config that training here left in a file of weights, without trusting it.

    From it come the model, the class names and the sizes of images; all else is that of `quickstart/your_data.py`.
    Raise ConfigError for a file without a config, and for a config that names anything but models and resizes.
    """
    if weights.config is None:
        raise ConfigError(
            f"{weights.path} does not hold the config of its training: pass that as well, as in "
            "Detector('dino/dino_r50_4scale_12ep.py', weights=...), or --config-file."
        )
    cfg = load_config(DEFAULT_CONFIG)
    cfg.model = model_config(weights.config, weights.path)
    content = yaml.safe_load(weights.config)
    for split in ("train", "test"):
        mapper = (((content.get("dataloader") or {}).get(split)) or {}).get("mapper")
        if isinstance(mapper, dict):
            cfg.dataloader[split].mapper = OmegaConf.create(_trusted(mapper, weights.path))
    names = (content.get("train") or {}).get("class_names")
    cfg.train.class_names = weights.class_names or names
    cfg.train.update(epochs=None, max_iter=None)  # a training's length follows from its data
    return cfg


def _trusted(node: Any, path: str) -> Any:
    """Return a mapper's node if it names nothing but a mapper and augmentations of ours; raise ConfigError else."""
    if isinstance(node, dict):
        target = node.get("_target_", _MAPPERS[0])
        folder, _, name = str(target).rpartition(".")
        if target not in _MAPPERS and not (folder in _FOLDERS and name in _TRANSFORMS):
            raise ConfigError(
                f"{path} holds a config whose mapper names {target}, which is not run from a file of weights: pass the "
                "config of the training as well, if you trust it."
            )
        return {key: _trusted(value, path) for key, value in node.items() if not _is_interpolation(value)}
    return [_trusted(value, path) for value in node] if isinstance(node, list) else node


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def config_text(cfg: DictConfig) -> str:
    """Return a config as the YAML that files of weights keep."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        resolved = cfg.copy()
        OmegaConf.resolve(resolved)
        LazyConfig.save(resolved, str(path))
        return path.read_text(encoding="utf-8")


def training_config(cfg: DictConfig) -> DictConfig:
    """Return a copy of a config with what training needs and it lacks, from `quickstart/your_data.py`."""
    whole = cfg.copy()
    missing = [key for key in REQUIRED if key not in whole]
    if missing:
        usual = load_config(DEFAULT_CONFIG)
        for key in missing:
            whole[key] = usual[key]
    return whole
