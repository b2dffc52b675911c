"""Checks of a setting's value, which need no torch; every wrong number reads the same."""

import math
from collections.abc import Sequence

from align_detr.errors import ConfigError


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


def check_flag(value: bool, key: str) -> bool:
    """Return `value`. Raise ConfigError unless it is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {value!r}, but must be True or False: set it to one of them.")
    return value


def check_choice(value: str, key: str, choices: Sequence[str]) -> str:
    """Return `value`. Raise ConfigError unless it is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{key} is {value!r}, but must be one of {', '.join(choices)}: set it to one of them.")
    return value


def check_texts(value: Sequence[str], key: str, example: str) -> list[str]:
    """Return `value` as a list. Raise ConfigError unless it is a list of texts; one text alone is none."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{key} is {value!r}, but must be a list of texts: write it as {key}=[{example!r}].")
    return list(value)


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
