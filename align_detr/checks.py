"""Checks of settings and of parts that must fit each other; every wrong number reads the same."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from align_detr.errors import ConfigError

if TYPE_CHECKING:
    from align_detr.structures import Predictions


def check_number(value: float, key: str, least: float | None = None) -> float:
    """Return `value`. Raise ConfigError unless it is a finite number, of at least `least`."""
    if not is_number(value) or (least is not None and value < least):
        wanted = "a finite number" if least is None else f"a finite number of at least {least}"
        raise ConfigError(f"{key} is {value!r}, but must be {wanted}: set it to a number.")
    return value


def check_share(value: float, key: str) -> float:
    """Return `value`. Raise ConfigError outside [0, 1], where a weight or an exponent would be negative."""
    return check_between(value, key, 0, 1)


def check_between(
    value: float, key: str, low: float, high: float, remedy: str = "set it to a number between them"
) -> float:
    """Return `value`. Raise ConfigError unless it is a number in [low, high]; `remedy` ends the sentence."""
    if not is_number(value) or not low <= value <= high:
        raise ConfigError(f"{key} is {value!r}, but must lie in [{low}, {high}]: {remedy}.")
    return value


def check_count(value: int, key: str, least: int = 1, remedy: str = "set it to such a number") -> int:
    """Return `value`. Raise ConfigError unless it is a whole number of at least `least`; `remedy` ends the sentence."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key} is {value!r}, but must be a whole number of at least {least}: {remedy}.")
    return value


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def check_head(parts: Iterable[nn.Module | None], name: str, preds: "Predictions") -> None:
    """Raise ConfigError if one of `parts` (losses, costs, a weighting) reads softmax logits and the set `name` has
    sigmoid ones, or the other way round: every number would be finite, and wrong.
    """
    kinds = {True: 'softmax logits (K classes and "no object")', False: "sigmoid logits (K classes)"}
    for part in parts:
        wanted = getattr(part, "softmax", None)
        if wanted is not None and wanted != preds.softmax:
            raise ConfigError(
                f"{type(part).__name__} reads {kinds[wanted]}, but the set '{name}' has {kinds[preds.softmax]}: change "
                f"model.{preds.origin}, or the losses and costs that do not fit it."
            )
