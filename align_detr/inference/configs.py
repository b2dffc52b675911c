"""A detector's config: of the model zoo or a file, as text, and as training needs it."""

import tempfile
from difflib import get_close_matches
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from align_detr import model_zoo
from align_detr.engine.class_names import without_local_paths
from align_detr.engine.data_config import DEFAULT_CONFIG
from align_detr.errors import ConfigError
from align_detr.lazy_config import REQUIRED, load_config
from align_detr.shipped import SHIPPED

WEIGHTS_ENDINGS = frozenset({".pth", ".pt", ".pkl", ".npz", ".safetensors", ".ckpt"})


def named_config(config: str | Path | DictConfig) -> DictConfig:
    """Return a config by path or model-zoo name, or a copy of a loaded one.

    Raise ConfigError for one without model, and for the name of something else than a config.
    """
    if isinstance(config, (str, Path)):
        _check_name(str(config))
        return load_config(str(config))
    if not isinstance(config, DictConfig):
        raise ConfigError(
            f"A {type(config).__name__} is no config: pass a path, a name of the model zoo, or a loaded config."
        )
    if "model" not in config:
        raise ConfigError("The config has no node 'model': pass a whole config, as model_zoo.get_config returns it.")
    return config.copy()


def _check_name(name: str) -> None:
    """Raise ConfigError for a file of weights, and for a detector that comes with the package, with what to do."""
    if Path(name).is_file() or name in model_zoo.names():
        if Path(name).suffix.lower() in WEIGHTS_ENDINGS:
            raise ConfigError(f"{name} is a file of weights, not a config: pass it as weights={name!r} (--weights).")
        return
    if Path(name).suffix.lower() in WEIGHTS_ENDINGS:
        raise ConfigError(f"{name} is named as weights are, and there is no such file: pass weights=FILE (--weights).")
    if name in SHIPPED:
        raise ConfigError(
            f"The detector '{name}' has weights of its own: leave them out, or pass weights=FILE alone or with the "
            "config of their training."
        )
    nearest = get_close_matches(name, SHIPPED, n=1, cutoff=0.75)
    if nearest:
        raise ConfigError(f"There is no detector and no config named {name}: did you mean '{nearest[0]}'?")


def config_text(cfg: DictConfig) -> str:
    """Return a config as the YAML that files of weights keep, without paths of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        LazyConfig.save(cfg, str(path))
        return without_local_paths(path.read_text(encoding="utf-8"))


def training_config(cfg: DictConfig) -> DictConfig:
    """Return a copy of a config with what training needs and it lacks, from `quickstart/your_data.py`."""
    whole = cfg.copy()
    missing = [key for key in REQUIRED if key not in whole]
    if missing:
        usual = load_config(DEFAULT_CONFIG)
        for key in missing:
            whole[key] = usual[key]
    return whole
