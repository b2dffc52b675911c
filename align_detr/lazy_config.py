"""LazyConfig files below the models: loading with overrides, and a model's arguments from yacs keys."""

import inspect
import logging
import os
import re
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from align_detr import model_zoo
from align_detr.config_nodes import require_sections
from align_detr.data.image_size import set_image_size
from align_detr.data.register import registration_of_configs
from align_detr.errors import AlignDetrError, ConfigError
from align_detr.option_values import settle_values, turn_off_sections
from align_detr.overrides import check_overrides, complete_train, has_key, keys_of, settle_length
from align_detr.shipped import SHIPPED, weights_file

__all__ = ["REQUIRED", "check_overrides", "has_key", "load_config", "model_from_yacs", "settle"]

logger = logging.getLogger(__name__)

_DEFAULT_TRAINER = "detectron2.engine.defaults.DefaultTrainer"
# what model, optimizer and schedule of a DefaultTrainer are made of
_READ_FROM_YACS = (
    *("model", "optimizer", "lr_multiplier"),
    *("train.lr_scaling", "train.base_batch_size", "train.warmup_epochs", "train.epochs", "train.clip_grad"),
)
REQUIRED = ("model", "optimizer", "lr_multiplier", "train", "dataloader")


def load_config(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config by path or model-zoo name and apply `key=value` overrides.

    Keys of `train` that the file lacks have their defaults, an override of `train.epochs` replaces the file's
    `max_iter`, the file's batch becomes `train.base_batch_size` unless it is set, and `train.image_size` sets the sizes
    of the data. Raise ConfigError for an unknown name, a file that cannot be run (with its line), one that lacks a node
    of a training config, an override that cannot be read, and a key that the config does not have (`+key=value` adds
    one).
    """
    path = config_file if os.path.isfile(config_file) else str(model_zoo.config_path(config_file))
    cfg = _load_file(path)
    missing = [name for name in REQUIRED if name not in cfg]
    if missing:
        raise ConfigError(f"{path} does not define {', '.join(missing)}, which a training config needs: add them.")
    require_sections(cfg)
    complete_train(cfg)
    check_overrides(cfg, overrides)
    if cfg.train.base_batch_size is None:
        cfg.train.base_batch_size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    cfg = LazyConfig.apply_overrides(cfg, list(overrides))
    require_sections(cfg)
    turn_off_sections(cfg.train)
    settle_length(cfg, overrides)
    settle(cfg)
    return cfg


def settle(cfg: DictConfig) -> None:
    """Complete the node `train` of a config, turn off what its values turn off, and set the sizes that
    `train.image_size` asks for; a second call changes nothing. Raise ConfigError for values that no run can use.
    """
    require_sections(cfg)
    turn_off_sections(cfg.train)
    complete_train(cfg)
    if cfg.train.init_checkpoint in SHIPPED:
        cfg.train.init_checkpoint = str(weights_file(cfg.train.init_checkpoint))
    settle_values(cfg)
    if cfg.train.image_size is not None:
        set_image_size(cfg.dataloader, cfg.train.image_size)


def _load_file(path: str) -> DictConfig:
    """Load a config file; turn every error into a ConfigError with the file, the line and its text."""
    try:
        with registration_of_configs():
            return LazyConfig.load(path)
    except AlignDetrError:
        raise
    except Exception as error:  # a config file is code and can raise anything
        where, cause = _origin_of(error, path)
        text = " ".join(str(cause.msg if isinstance(cause, SyntaxError) else cause).split())
        remedy = "correct the file"
        if isinstance(cause, ModuleNotFoundError):
            remedy = "install the module, or name its folder in PYTHONPATH (PYTHONPATH=. for the current one)"
        raise ConfigError(
            f"The config file {path} cannot be loaded ({where}: {type(cause).__name__}: {text}): {remedy}."
        ) from error


def _origin_of(error: Exception, path: str) -> tuple[str, Exception]:
    """Return "FILE, line N" of a config file's error, and the error itself, unwrapped from detectron2's if need be."""
    if isinstance(error, SyntaxError):
        wrapped = re.fullmatch(r"Config file (.+) has syntax error!", str(error.msg))
        if wrapped and isinstance(error.__cause__, SyntaxError):
            return f"{wrapped.group(1)}, line {error.__cause__.lineno}", error.__cause__
        return f"{error.filename or path}, line {error.lineno}", error
    # the innermost line at the top level of a file: of the config or of a file that it imports, not of a function
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    files = [frame for frame in frames if os.path.isfile(frame.filename)]
    return (f"{files[-1].filename}, line {files[-1].lineno}" if files else path), error


def model_from_yacs(cfg: CfgNode, detector: type) -> dict[str, Any]:
    """Return the instantiated constructor arguments of `detector` from the two keys of `align_detr.config`.

    Raise ConfigError if the keys are missing, an override names no key, the images come in another order than RGB, or
    the file describes a detector that `detector` is neither equal to nor derived from.
    """
    if "ALIGN_DETR" not in cfg.MODEL or not cfg.MODEL.ALIGN_DETR.CONFIG:
        raise ConfigError(
            "MODEL.ALIGN_DETR.CONFIG is not set: call align_detr.config.add_align_detr_config(cfg), then name a config "
            "such as 'detr/detr_r50_500ep.py'."
        )
    if cfg.INPUT.FORMAT != "RGB":
        raise ConfigError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, but the models here take RGB images: set it to RGB.")
    lazy = load_config(cfg.MODEL.ALIGN_DETR.CONFIG, list(cfg.MODEL.ALIGN_DETR.OVERRIDES))
    target = lazy.model["_target_"]
    target = locate(target) if isinstance(target, str) else target
    if not issubclass(detector, target):
        raise ConfigError(
            f"{cfg.MODEL.ALIGN_DETR.CONFIG} describes a {target.__name__}, but MODEL.META_ARCHITECTURE is "
            f"{detector.__name__}: change one of the two."
        )
    _warn_of_solver(cfg.MODEL.ALIGN_DETR.CONFIG)
    _warn_of_unused(tuple(keys_of(cfg.MODEL.ALIGN_DETR.OVERRIDES)))
    return {key: instantiate(value) for key, value in lazy.model.items() if key != "_target_"}


@cache  # once per list of keys
def _warn_of_unused(keys: Sequence[str]) -> None:
    """Warn of overridden keys that only our own training reads, and never a trainer of detectron2's."""
    unused = [key for key in keys if not any(key == read or key.startswith(f"{read}.") for read in _READ_FROM_YACS)]
    if unused:
        logger.warning(
            "MODEL.ALIGN_DETR.OVERRIDES sets %s, which only `align-detr train` reads: remove it, or set detectron2's "
            "own keys, such as SOLVER, MODEL.WEIGHTS and DATALOADER.",
            ", ".join(unused),
        )


def _warn_of_solver(name: str) -> None:
    """Warn if the model is for a DefaultTrainer with detectron2's optimizer, to which SGD and its rates belong.

    Only the trainer that is being made, some frames above, tells this case from prediction and from a trainer that
    builds another optimizer.
    """
    frame = inspect.currentframe()
    while frame is not None:
        trainer: Any = type(frame.f_locals.get("self"))
        if any(f"{base.__module__}.{base.__name__}" == _DEFAULT_TRAINER for base in trainer.__mro__):
            if trainer.build_optimizer.__module__ == _DEFAULT_TRAINER.rpartition(".")[0]:
                logger.warning(
                    "%s takes detectron2's SGD and the SOLVER keys, not the optimizer, rates, schedule and clipping of "
                    "%s: override build_optimizer and build_lr_scheduler with those of align_detr.config.",
                    trainer.__name__,
                    name,
                )
            return
        frame = frame.f_back
