"""LazyConfig files below the models: loading, overrides of the command line, and a model's arguments from yacs keys."""

import difflib
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from align_detr import model_zoo
from align_detr.data.register import registration_of_configs
from align_detr.errors import AlignDetrError, ConfigError

REQUIRED = ("model", "optimizer", "lr_multiplier", "train", "dataloader")


def load_config(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config by path or model-zoo name and apply `key=value` overrides.

    Raise ConfigError for an unknown name, a file that cannot be run (with its line), one that lacks a node of a
    training config, an override that cannot be read, and a key that the config does not have (`+key=value` adds one).
    """
    path = config_file if os.path.isfile(config_file) else str(model_zoo.config_path(config_file))
    cfg = _load_file(path)
    missing = [name for name in REQUIRED if name not in cfg]
    if missing:
        raise ConfigError(f"{path} does not define {', '.join(missing)}, which a training config needs: add them.")
    check_overrides(cfg, overrides)
    return LazyConfig.apply_overrides(cfg, list(overrides))


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
        raise ConfigError(
            f"The config file {path} cannot be loaded ({where}: {type(cause).__name__}: {text}): correct the file."
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


def check_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raise ConfigError for an override that cannot be read, has several values, deletes a key, or names a key that is
    not there.
    """
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


def _suggestion(cfg: DictConfig, key: str) -> str:
    """Return "; did you mean ...?" with the key nearest to `key`, or "" if there is none."""
    known = list(_keys(OmegaConf.to_container(cfg, resolve=False), ""))
    same_end = [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or difflib.get_close_matches(
        key, same_end or known, n=1, cutoff=0.0 if same_end else 0.5
    )
    return f"; did you mean '{near[0]}'?" if near else ""


def _keys(node: Any, prefix: str) -> Iterable[str]:
    """Yield the dotted keys of all nodes below `node`, list entries by index."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if name != "_target_":
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")


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
    return {key: instantiate(value) for key, value in lazy.model.items() if key != "_target_"}
