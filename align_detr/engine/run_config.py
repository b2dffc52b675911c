"""A run's configuration: the file, the overrides on the command line, and the numbers that follow from the data."""

import difflib
import math
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from align_detr import model_zoo
from align_detr.data import count_images
from align_detr.errors import AlignDetrError, ConfigError

REQUIRED = ("model", "optimizer", "lr_multiplier", "train", "dataloader")


@dataclass(frozen=True)
class RunLength:
    """How long a run is: images of the training set, images a batch over all processes, iterations."""

    images: int
    total_batch: int
    iterations_per_epoch: int
    max_iter: int

    @property
    def epochs(self) -> float:
        """Passes over the training set."""
        return self.max_iter / self.iterations_per_epoch


def load_config(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config by path or model-zoo name and apply `key=value` overrides.

    Raises ConfigError for an unknown name, a file that cannot be run (with its line), one that lacks a node of a
    training config, an override that cannot be read, and a key that the config does not have (`+key=value` adds one).
    """
    path = config_file if os.path.isfile(config_file) else str(model_zoo.config_path(config_file))
    cfg = _load_file(path)
    missing = [name for name in REQUIRED if name not in cfg]
    if missing:
        raise ConfigError(f"{path} is no training config: it does not define {', '.join(missing)}.")
    check_overrides(cfg, overrides)
    return LazyConfig.apply_overrides(cfg, list(overrides))


def _load_file(path: str) -> DictConfig:
    """Load a config file; whatever it raises becomes a ConfigError with the file, the line and the error."""
    try:
        return LazyConfig.load(path)
    except AlignDetrError:
        raise
    except Exception as error:  # a config file is code, and fails as code does
        where, cause = _place_of(error, path)
        text = " ".join(str(cause.msg if isinstance(cause, SyntaxError) else cause).split())
        raise ConfigError(
            f"The config file {path} cannot be loaded ({where}: {type(cause).__name__}: {text}): correct the file."
        ) from error


def _place_of(error: Exception, path: str) -> tuple[str, Exception]:
    """Return "FILE, line N" of a config file's error, and the error itself, out of detectron2's if that wraps it."""
    if isinstance(error, SyntaxError):
        wrapped = re.fullmatch(r"Config file (.+) has syntax error!", str(error.msg))
        if wrapped and isinstance(error.__cause__, SyntaxError):
            return f"{wrapped.group(1)}, line {error.__cause__.lineno}", error.__cause__
        return f"{error.filename or path}, line {error.lineno}", error
    # the innermost line of a file, which is the config's own or one of a file it imports; not those of functions
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    files = [frame for frame in frames if os.path.isfile(frame.filename)]
    return (f"{files[-1].filename}, line {files[-1].lineno}" if files else path), error


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raise ConfigError for an override that cannot be read, has several values, deletes a key, or names a key that is
    not there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_overrides([text])[0]
        except HydraException as error:
            raise ConfigError(
                f"The override '{text}' cannot be read: write key=value, and quote a value with special characters "
                "twice, as in 'key=\"a b\"'."
            ) from error
        key = override.key_or_group
        if override.is_delete():
            raise ConfigError(f"The override '{text}' deletes a key, which is not supported: set it to null instead.")
        if override.is_sweep_override():
            raise ConfigError(
                f"The override '{text}' reads as several values: write a list as key=[a,b], and quote a text with "
                "commas twice, as in 'key=\"a,b\"'."
            )
        if override.is_add() or override.is_force_add() or has_key(cfg, key):
            continue
        raise ConfigError(f"The config has no key '{key}'{_suggestion(cfg, key)} (+{key}=... adds a new one).")


def has_key(cfg: Any, key: str) -> bool:
    """Return whether the dotted `key` leads to a node of `cfg` (a None counts); list entries go by number."""
    node = cfg
    for part in key.split("."):
        if isinstance(node, DictConfig) and part in node.keys():
            node = node[part]
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False
    return True


def _suggestion(cfg: DictConfig, key: str) -> str:
    known = list(_keys(OmegaConf.to_container(cfg, resolve=False), ""))
    same_end = [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or difflib.get_close_matches(
        key, same_end or known, n=1, cutoff=0.0 if same_end else 0.5
    )
    return f"; did you mean '{near[0]}'?" if near else ""


def _keys(node: Any, prefix: str) -> Iterable[str]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if name != "_target_":
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")


def dataset_names(loader: DictConfig) -> list[str]:
    """Return the data sets a loader's config names: `dataset` (ours), `names`, or `dataset.names` (detectron2's)."""
    node = loader.get("dataset", None)
    if node is None:
        node = loader.get("names", None)
    if isinstance(node, DictConfig):
        node = node.get("names", None)
    if node is None:
        return []
    return [node] if isinstance(node, str) else [str(name) for name in node]


def check_batch(cfg: DictConfig, world_size: int) -> int:
    """Return the images a batch over all processes; raises ConfigError unless all processes get the same number."""
    total = cfg.dataloader.train.get("total_batch_size", None)
    if total is None:
        raise ConfigError("The config has no dataloader.train.total_batch_size, the images a batch over all processes.")
    if not isinstance(total, int) or total < 1:
        raise ConfigError(f"dataloader.train.total_batch_size={total} must be positive, and a whole number of images.")
    if total % world_size:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total} cannot be shared equally by {world_size} processes: "
            f"set it to a multiple of {world_size}."
        )
    return int(total)


def resolve_length(cfg: DictConfig, world_size: int) -> RunLength:
    """Fill in max_iter, eval_period and checkpointer.period of `cfg.train` where they are None, and return the length.

    An epoch has max(1, images // images a batch) iterations. Raises ConfigError if the epochs are not positive, or if
    the training data's size is not known and max_iter is not given.
    """
    total_batch = check_batch(cfg, world_size)
    names = dataset_names(cfg.dataloader.train)
    images = count_images(names) if names else 0
    if not names and cfg.train.max_iter is None:
        raise ConfigError("dataloader.train names no data set to count epochs by: set dataset, or train.max_iter.")
    per_epoch = max(1, images // total_batch)
    if cfg.train.max_iter is None:
        if cfg.train.epochs <= 0:
            raise ConfigError(f"train.epochs={cfg.train.epochs} must be positive.")
        cfg.train.max_iter = max(1, math.floor(cfg.train.epochs * per_epoch + 1e-6))
    if cfg.train.eval_period is None:
        cfg.train.eval_period = per_epoch
    if cfg.train.checkpointer.period is None:
        cfg.train.checkpointer.period = per_epoch
    return RunLength(images, total_batch, per_epoch, int(cfg.train.max_iter))
