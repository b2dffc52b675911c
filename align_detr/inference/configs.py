"""A detector's config: of the model zoo or a file, as text, and as training needs it."""

import tempfile
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

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
