"""A detector's config: of the model zoo or a file, out of a file of weights, and as training needs it."""

import tempfile
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from align_detr.checkpoint.contents import Weights
from align_detr.checkpoint.trusted_config import model_config
from align_detr.data.image_size import follow_test_mapper
from align_detr.engine.data_config import DEFAULT_CONFIG
from align_detr.errors import ConfigError
from align_detr.lazy_config import REQUIRED, load_config


def named_config(config: str | Path | DictConfig) -> DictConfig:
    """Return a config by path or model-zoo name, or a copy of a loaded one; raise ConfigError for one without model."""
    if not isinstance(config, DictConfig):
        return load_config(str(config))
    if "model" not in config:
        raise ConfigError("The config has no node 'model': pass a whole config, as model_zoo.get_config returns it.")
    return config.copy()


def config_in_file(weights: Weights) -> DictConfig:
    """Return the config that training here left in a file of weights, without trusting it.

    From it come the model, the class names and the sizes of images, to which those of training are scaled; all else is
    that of `quickstart/your_data.py`.
    Raise ConfigError for a file without a config, and for a config that names anything but models and resizes.
    """
    if weights.config is None:
        raise ConfigError(
            f"{weights.path} does not hold the config of its training: pass that as well, as in "
            "Detector('dino/dino_r50_4scale_12ep.py', weights=...), or --config-file."
        )
    cfg = load_config(DEFAULT_CONFIG)
    trusted = model_config(weights.config, weights.path)
    cfg.model = trusted.model
    mapper = OmegaConf.select(trusted, "dataloader.test.mapper")
    if mapper is not None:
        follow_test_mapper(cfg.dataloader, mapper)
    cfg.train.class_names = weights.class_names or OmegaConf.select(trusted, "train.class_names")
    cfg.train.update(epochs=None, max_iter=None)  # a training's length follows from its data
    return cfg


def config_text(cfg: DictConfig) -> str:
    """Return a config as the YAML that files of weights keep."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        LazyConfig.save(cfg, str(path))
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
