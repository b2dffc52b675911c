"""Values of a config: what `0` and `null` turn off; one sentence, before anything is built, for what is wrong."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from align_detr.checks import check_between, check_count, check_flag, check_number
from align_detr.errors import ConfigError
from align_detr.stated_values import stated_values

# What a section of `train` that is null stands for, and what null stands for in a key of it: both mean off.
_OFF: dict[str, Any] = {
    "amp.enabled": False,
    "ema.enabled": False,
    "clip_grad.max_norm": 0,
    "checkpointer.period": 0,
}
_NULL: dict[str, Any] = {
    "amp.enabled": False,
    "ema.enabled": False,
    "clip_grad.max_norm": 0,
    "log_period": 0,
    "attention_sparsity": 0,
    "data_timeout": 0,
    "init_checkpoint": "",
    "base_batch_size": None,
    "accumulate": 1,
    "pictures": 0,
    "validation_loss": False,
    "cudnn_benchmark": False,
}
_ZERO: dict[str, Any] = {
    "checkpointer.max_to_keep": None,
    "base_batch_size": None,
    "warmup_epochs": 0,
    "freeze": [],
    "accumulate": 1,
    "patience": None,
    "best": None,
    "init_checkpoint": "",
    "loggers": [],
    "amp.enabled": False,
    "ema.enabled": False,
    "validation_loss": False,
    "cudnn_benchmark": False,
}
# Least values of whole numbers, some of which may be None.
_COUNTS = {"log_period": 0, "attention_sparsity": 0, "on_nonfinite_limit": 1, "pictures": 0}
_COUNTS_OR_NONE = {
    "max_iter": 1,
    "eval_period": 0,
    "checkpointer.period": 0,
    "checkpointer.max_to_keep": 1,
    "base_batch_size": 1,
    "seed": -1,
}
_FLAGS = ("amp.enabled", "ema.enabled", "validation_loss", "cudnn_benchmark")
_LONGEST = 10**6  # seconds to wait for data: a poll of the system takes milliseconds of 32 bits
_SECTIONS = ("model", "train", "dataloader")
_MODEL_COUNTS = ("num_queries", "num_one_to_one", "num_detections", "num_classes", "embed_dim", "num_heads")


def require_sections(cfg: DictConfig, names: Sequence[str] = _SECTIONS, prefix: str = "") -> None:
    """Raise ConfigError for a part `prefix` + name of a config that is null."""
    for name in names:
        if name in cfg and cfg[name] is None:
            raise ConfigError(f"{prefix}{name} is null, but a run needs it: leave the config's own.")


def check_training(cfg: DictConfig) -> None:
    """Raise ConfigError for a part of a config that training needs and that is null, and for an optimizer's number that
    none can use.
    """
    require_sections(cfg, ("optimizer", "lr_multiplier"))
    if cfg.train.max_iter is None:
        _require_epochs(cfg.train.epochs)
    require_sections(cfg.dataloader, ("train",), "dataloader.")
    for key in ("lr", "weight_decay", "eps"):
        if key in cfg.optimizer:
            check_number(cfg.optimizer[key], f"optimizer.{key}", 0)
    betas = cfg.optimizer.get("betas", (0, 0))
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ConfigError(f"optimizer.betas is {betas!r}, but must be two numbers: set it to [0.9,0.999], for example.")
    for beta in betas:
        check_between(beta, "optimizer.betas", 0, math.nextafter(1, 0), "set it to numbers less than 1")


def turn_off_sections(train: DictConfig) -> None:
    """Replace each section of `train` that is null or 0: by one that is off, or by {}, which stands for its defaults.

    Raise ConfigError for another value in place of a section.
    """
    for section in ("amp", "ema", "clip_grad", "checkpointer", "ddp"):
        if section not in train or isinstance(train[section], DictConfig):
            continue
        if train[section] is not None and not _is_zero(train[section]):
            raise ConfigError(
                f"train.{section} is {train[section]!r}, but has keys: set one of them, or train.{section}=null."
            )
        own = {key.partition(".")[2]: value for key, value in _OFF.items() if key.startswith(f"{section}.")}
        train[section] = OmegaConf.create(own)


def settle_values(cfg: DictConfig) -> None:
    """Give the options of a complete node `train` the values that null and 0 stand for.

    Raise ConfigError for a value that no run can use, there or among the counts of the model.
    """
    train = cfg.train
    for name in ("test", "evaluator"):
        if _is_zero(cfg.dataloader.get(name)):
            cfg.dataloader[name] = None
    if cfg.dataloader.get("test") is None:
        cfg.dataloader.evaluator = None  # its interpolations would name what is not there
    for key, off in _NULL.items():
        if OmegaConf.select(train, key) is None:
            OmegaConf.update(train, key, off)
    for key, off in _ZERO.items():
        if _is_zero(OmegaConf.select(train, key)):
            OmegaConf.update(train, key, off)
    for counts, optional in ((_COUNTS, False), (_COUNTS_OR_NONE, True)):
        for key, least in counts.items():
            value = _whole(OmegaConf.select(train, key))
            if value is not None or not optional:
                OmegaConf.update(train, key, check_count(value, f"train.{key}", least))
    for key in _FLAGS:
        value = OmegaConf.select(train, key)
        OmegaConf.update(train, key, check_flag(True if type(value) is int and value == 1 else value, f"train.{key}"))
    _check_numbers(train)
    if train.best is not None and not isinstance(train.best, str):
        raise ConfigError(f"train.best is {train.best!r}, but must be a result of evaluation: set it to bbox/AP.")
    if train.on_nonfinite not in ("stop", "skip"):
        raise ConfigError(f"train.on_nonfinite is {train.on_nonfinite!r}, but must be stop or skip: set it to stop.")
    if not isinstance(train.output_dir, str) or not train.output_dir:
        raise ConfigError(f"train.output_dir is {train.output_dir!r}, but must be a folder: set it to a path.")
    for key, value in _model_counts(cfg.model):
        check_count(value, key)


def _check_numbers(train: DictConfig) -> None:
    if train.max_iter is None and train.epochs is not None:  # both None: of a config out of a file, until it trains
        _require_epochs(train.epochs)
    check_number(train.clip_grad.max_norm, "train.clip_grad.max_norm", 0)
    if train.clip_grad.norm_type != math.inf:
        check_number(train.clip_grad.norm_type, "train.clip_grad.norm_type", 1)
    if train.ema.enabled:
        check_between(train.ema.decay, "train.ema.decay", 0, math.nextafter(1, 0), "set it to less than 1")
    check_between(train.data_timeout, "train.data_timeout", 0, _LONGEST, "set it to seconds, or to 0 to wait for ever")
    if train.seed is not None:  # numpy's are below 2**32, and the iteration is added to it
        check_between(train.seed, "train.seed", -1, 2**31, "set it to a smaller number")
    if train.warmup_epochs is not None:
        check_number(train.warmup_epochs, "train.warmup_epochs")


def _require_epochs(epochs: Any) -> None:
    if isinstance(check_number(epochs, "train.epochs"), (int, float)) and epochs <= 0:
        raise ConfigError(f"train.epochs={epochs} must be positive: set it to a number above 0.")


def _is_zero(value: Any) -> bool:
    """Return whether a value is the number 0; False is none."""
    return type(value) in (int, float) and value == 0


def _whole(value: Any) -> Any:
    """Return a float without fraction, such as 1e3, as an integer; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _model_counts(model: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of the counts in a model's config, of which none may be 0, None for those of queries."""
    for key, _, value in stated_values(model, "model"):
        name = key.rpartition(".")[2]
        if name in _MODEL_COUNTS and (type(value) in (int, float) or (value is None and name != "num_detections")):
            yield key, value
