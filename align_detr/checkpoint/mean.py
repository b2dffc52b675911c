"""The mean of the weights of several checkpoints of one training."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from align_detr.checkpoint.contents import Weights, read_weights
from align_detr.errors import ConfigError


def mean_of(paths: Sequence[str], *, averaged: bool = True) -> Weights:
    """Return the mean of the weights of files, which are read one after the other; all count alike.

    Floats are summed in float64 and get their type back; integers, such as a batch norm's number of batches, are those
    of the last file, as class names, config and iteration are. averaged: as of `read_weights`. Raise ConfigError for
    fewer than two files, files of different names, shapes, types or classes, moving averages beside plain weights, and
    for numbers that are not finite.
    """
    if len(paths) < 2:
        raise ConfigError(f"A mean needs at least two files of weights, and {len(paths)} is given: name several.")
    first: Weights | None = None
    sums: dict[str, Tensor] = {}
    for path in paths:
        weights = read_weights(path, averaged=averaged)
        first = weights if first is None else first
        _require_alike(first, weights)
        for key, value in weights.state.items():
            if value.is_floating_point():
                _require_finite(key, value, path)
                sums[key] = value.double() if key not in sums else sums[key] + value
    state = {
        key: (sums[key] / len(paths)).to(value.dtype) if key in sums else value for key, value in weights.state.items()
    }
    return replace(weights, state=state)


def _require_alike(first: Weights, other: Weights) -> None:
    """Raise ConfigError for files whose mean means nothing."""
    pair = f"{first.path} and {other.path}"
    remedy = "take checkpoints of one training"
    if unlike := first.state.keys() ^ other.state.keys():
        key = min(unlike)
        where, missing = (first, other) if key in first.state else (other, first)
        raise ConfigError(f"{where.path} has the tensor '{key}', and {missing.path} has not: {remedy}.")
    for key, value in first.state.items():
        kinds = [f"{tuple(each.shape)} {each.dtype}".replace("torch.", "") for each in (value, other.state[key])]
        if kinds[0] != kinds[1]:
            raise ConfigError(f"{pair} have the tensor '{key}' as {kinds[0]} and as {kinds[1]}: {remedy}.")
    if first.class_names != other.class_names:
        raise ConfigError(f"{pair} have other class names: {remedy}.")
    if first.averaged != other.averaged:
        kinds = ["moving averages" if each.averaged else "plain weights" for each in (first, other)]
        raise ConfigError(f"{pair} hold {kinds[0]} and {kinds[1]}: take files of one kind, or --plain-weights.")


def _require_finite(key: str, value: Tensor, path: str) -> None:
    if not bool(torch.isfinite(value).all()):
        raise ConfigError(f"{path} has numbers in '{key}' that are not finite: leave the file out.")
