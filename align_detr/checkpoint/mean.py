"""The mean of the weights of several checkpoints of one training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from align_detr.checkpoint.contents import Weights, read_weights
from align_detr.checkpoint.rewriting import require_names
from align_detr.errors import ConfigError


def mean_of(paths: Sequence[str], *, averaged: bool = True) -> Weights:
    """Return the mean of the weights of files, which are read one after the other; all count alike.

    Floats are summed in float64 and get their type back; integers, such as a batch norm's number of batches, are those
    of the last file, as class names, config and iteration are. averaged: as of `read_weights`. Raise ConfigError for
    fewer than two files, a file that is named twice, files without floats or with names that detectron2 matches by
    similarity, files of different names, shapes, types or classes, moving averages beside plain weights, and for
    numbers that are not finite.
    """
    if len(paths) < 2:
        raise ConfigError(f"A mean needs at least two files of weights, and {len(paths)} is given: name several.")
    _require_different(paths)
    first: Weights | None = None
    sums: dict[str, Tensor] = {}
    for path in paths:
        weights = read_weights(path, averaged=averaged)
        require_names(weights)
        first = weights if first is None else first
        _require_alike(first, weights)
        floats = {key: value for key, value in weights.state.items() if value.is_floating_point()}
        if not floats:
            raise ConfigError(f"{path} holds no floats, which alone have a mean: take checkpoints of a training.")
        for key, value in floats.items():
            wide = _in_float64(key, value, path)
            sums[key] = sums[key] + wide if key in sums else wide
    state = {
        key: (sums[key] / len(paths)).to(value.dtype) if key in sums else value for key, value in weights.state.items()
    }
    return replace(weights, state=state)


def _require_different(paths: Sequence[str]) -> None:
    """Raise ConfigError for a file that would count twice, by its own path or by a link to it."""
    named: dict[Path, str] = {}
    for path in paths:
        file = Path(path).resolve()
        if file in named:
            again = "again" if named[file] == path else f"again, as {path}"
            raise ConfigError(f"{named[file]} is named {again}, and a mean counts each file once: name it once.")
        named[file] = path


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


def _in_float64(key: str, value: Tensor, path: str) -> Tensor:
    """Return the tensor in float64, which unlike 8 bits has sums; raise ConfigError for numbers that are not finite."""
    try:
        wide = value.double()
    except NotImplementedError as error:
        kind = str(value.dtype).removeprefix("torch.")
        raise ConfigError(f"{path} has the tensor '{key}' as {kind}, which has no mean: save wider floats.") from error
    if not bool(torch.isfinite(wide).all()):
        raise ConfigError(f"{path} has numbers in '{key}' that are not finite: leave the file out.")
    return wide
