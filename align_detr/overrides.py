"""Overrides of the command line: checked against a config, with the right key for a wrong one."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from align_detr import model_zoo
from align_detr.errors import ConfigError

# Names that other libraries give to a setting -> the key here; of several keys, the first that the config has.
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("learning_rate", "lr", "lr0", "base_lr"), ("optimizer.lr",)),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "img_scale", "resolution", "sides"), ("train.image_size",)),
    **dict.fromkeys(
        ("batch_size", "batch", "ims_per_batch", "total_batch_size"), ("dataloader.train.total_batch_size",)
    ),
    **dict.fromkeys(("num_classes", "nc"), ("model.head.num_classes", "model.roi_heads.num_classes")),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs"), ("train.epochs",)),
    **dict.fromkeys(("amp", "fp16", "bf16", "half", "mixed_precision"), ("train.amp.enabled",)),
    **dict.fromkeys(("workers", "num_workers"), ("dataloader.train.num_workers",)),
    **dict.fromkeys(("weights", "checkpoint", "pretrained", "load_from"), ("train.init_checkpoint",)),
    **dict.fromkeys(
        ("grad_accum", "grad_accum_steps", "grad_accumulation", "gradient_accumulation_steps", "accumulate"),
        ("train.accumulate",),
    ),
    **dict.fromkeys(
        ("gradient_checkpointing", "activation_checkpointing", "use_checkpoint", "with_cp"),
        ("train.checkpoint_activations",),
    ),
    **dict.fromkeys(("early_stopping", "patience"), ("train.patience",)),
    **dict.fromkeys(("warmup", "warmup_epochs"), ("train.warmup_epochs",)),
    **dict.fromkeys(("clip", "clip_max_norm", "grad_clip", "max_norm"), ("train.clip_grad.max_norm",)),
    **dict.fromkeys(("ema", "use_ema"), ("train.ema.enabled",)),
}
_READ_ELSEWHERE = {"class_names"}  # set by the config that `align-detr train --data` makes
_PASSED_ON = {"checkpointer", "ddp"}  # their keys are arguments of a function


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raise ConfigError for an override that cannot be read, has several values, deletes a key, names a key that is
    not there, or adds a key of `train` that nothing reads.
    """
    for text, override in _parsed(overrides):
        key = override.key_or_group
        if override.is_delete():
            raise ConfigError(f"The override '{text}' deletes a key, which is not supported: set it to null instead.")
        if override.is_sweep_override():
            raise ConfigError(
                f"The override '{text}' reads as several values: write a list as key=[a,b], and quote a text with "
                "commas twice, as in 'key=\"a,b\"'."
            )
        if has_key(cfg, key):
            continue
        if not (override.is_add() or override.is_force_add()):
            sentence = f"The config has no key '{key}'{_suggestion(cfg, key)}"
            if not _has_no_reader(cfg, key):
                sentence += f" (+{key}=... adds a new one)."
            raise ConfigError(sentence if sentence.endswith(("?", ".")) else f"{sentence}.")
        if _has_no_reader(cfg, key):
            raise ConfigError(
                f"Nothing reads the key '{key}'{_suggestion(cfg, key)} (a key for code of your own goes elsewhere, "
                f"such as +mine.{key.rsplit('.', 1)[-1]}=...)."
            )


def keys_of(overrides: Iterable[str]) -> list[str]:
    """Return the dotted keys of overrides; raise ConfigError for one that cannot be read."""
    return [override.key_or_group for _, override in _parsed(overrides)]


def settle_length(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Let an override of `train.epochs` set the length of a run also where the config has a `max_iter`.

    That `max_iter` becomes None, and so do the periods that go with it, unless they are overridden too; so does an
    `eval_period` where `eval_epochs` is given. Raise ConfigError for overrides that set both lengths.
    """
    given = {override.key_or_group for _, override in _parsed(overrides)}
    if "train.eval_epochs" in given and "train.eval_period" not in given:
        cfg.train.eval_period = None
    if "train.epochs" not in given or cfg.train.max_iter is None:
        return
    if "train.max_iter" in given:
        raise ConfigError(
            f"train.epochs={cfg.train.epochs} and train.max_iter={cfg.train.max_iter} both set the length of the run: "
            "leave out one of the two."
        )
    cfg.train.max_iter = None
    for node, key, full_key in (
        (cfg.train, "eval_period", "train.eval_period"),
        (cfg.train.checkpointer, "period", "train.checkpointer.period"),
    ):
        if full_key not in given and node[key]:  # 0 stays: evaluation at the end only
            node[key] = None


@cache
def train_defaults() -> DictConfig:
    """Return the node `train` of configs/common/train.py: every key that training reads, with its default."""
    return model_zoo.get_config("common/train.py").train


def complete_train(cfg: DictConfig) -> None:
    """Give the node `train` of a config the keys that it lacks, as a file of an earlier version does."""
    _complete(cfg.train, train_defaults())


def _complete(node: DictConfig, defaults: DictConfig) -> None:
    for key, value in defaults.items():
        if key not in node.keys():  # noqa: SIM118  (`in node` is False for a missing value)
            node[key] = value.copy() if isinstance(value, (DictConfig, ListConfig)) else value
        elif isinstance(value, DictConfig) and isinstance(node[key], DictConfig):
            _complete(node[key], value)


def unread_keys(train: DictConfig) -> list[str]:
    """Return the keys of a config's node `train` that nothing reads."""
    return [key for key in _keys(OmegaConf.to_container(train, resolve=False), "train.") if is_unread(key)]


def is_unread(key: str) -> bool:
    """Return whether nothing reads this dotted key, as far as known: only keys of `train` are."""
    first, *parts = key.split(".")
    if first != "train" or not parts or parts[0] in _READ_ELSEWHERE | _PASSED_ON:
        return False
    node: Any = train_defaults()
    for part in parts:
        if not isinstance(node, DictConfig):  # an entry of a list
            return False
        if part not in node.keys():  # noqa: SIM118  (`in node` is False for a missing value)
            return True
        node = node[part]
    return False


def has_key(cfg: Any, key: str) -> bool:
    """Return whether the dotted `key` leads to a node of `cfg` (a None counts); list entries go by index."""
    node = cfg
    for part in key.split("."):
        if isinstance(node, DictConfig) and part in node.keys():  # noqa: SIM118  (`in node` is False for a missing value)
            node = node[part]
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False
    return True


def _has_no_reader(cfg: DictConfig, key: str) -> bool:
    """Return whether it makes no sense to add `key`: one of `train`, or at the top another name of a setting."""
    return is_unread(key) or ("." not in key and bool(_synonym(cfg, key)))


def _parsed(overrides: Iterable[str]) -> Iterable[tuple[str, Override]]:
    """Yield the text and the meaning of each override; raise ConfigError for one that cannot be read."""
    parser = OverridesParser.create()
    for text in overrides:
        try:
            yield text, parser.parse_overrides([text])[0]
        except HydraException as error:
            raise ConfigError(
                f"The override '{text}' cannot be read: write key=value, and quote a value with special characters "
                "twice, as in 'key=\"a b\"'."
            ) from error


def _suggestion(cfg: DictConfig, key: str) -> str:
    """Return "; did you mean ...?" with the key that `key` stands for or is nearest to, or "" if there is none."""
    if synonym := _synonym(cfg, key):
        return f"; did you mean '{synonym}'?"
    end = key.rpartition(".")[2]
    known = [name for name in _keys(OmegaConf.to_container(cfg, resolve=False), "") if not key.startswith(f"{name}.")]
    same_end = [name for name in known if name.rpartition(".")[2] == end]
    # a key's way alone makes it near to no other
    known = [name for name in known if difflib.SequenceMatcher(None, name.rpartition(".")[2], end).ratio() >= 0.5]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or difflib.get_close_matches(
        key, same_end or known, n=1, cutoff=0.0 if same_end else 0.5
    )
    return f"; did you mean '{near[0]}'?" if near else ""


def _synonym(cfg: DictConfig, key: str) -> str:
    """Return the key of `cfg` for which the last part of `key` is another name, or ""."""
    candidates = _SYNONYMS.get(key.rsplit(".", 1)[-1].lower(), ())
    return next((other for other in candidates if has_key(cfg, other)), "")


def _keys(node: Any, prefix: str) -> Iterable[str]:
    """Yield the dotted keys of all nodes below `node`, list entries by index."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if name != "_target_":
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")
