"""Limits of a matching: how many queries each target is given (`copies`, bounded), and which pairs are forbidden."""

from collections.abc import Mapping, Sequence

import numpy as np

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.structures import Predictions

KEY = "model.criterion.matcher.copies"
FORBIDDEN = 1e30  # what says so in a cost; no other cost comes near it


def checked_copies(copies: Mapping[str, int | Sequence[int]]) -> dict[str, int | list[int]]:
    """`copies` with plain numbers and lists of them. Raises ConfigError for what is no whole number of at least 1."""
    if not isinstance(copies, Mapping):
        raise ConfigError(f"{KEY} is {copies}: name the set, as in {KEY}.main=3")
    for name, k in copies.items():
        for number in k if isinstance(k, Sequence) and not isinstance(k, str) else [k]:
            check_count(number, f"{KEY}.{name}")
    return {name: k if isinstance(k, int) else list(k) for name, k in copies.items()}


def check_names(copies: Mapping[str, object], sets: Mapping[str, Predictions]) -> None:
    """Raises ConfigError for a set that the model does not predict, or whose match is known."""
    for name in copies:
        if name not in sets:
            raise ConfigError(f"{KEY} names the set '{name}', but the model predicts {', '.join(sets)}")
        if sets[name].match is not None:
            raise ConfigError(f"{KEY} names the set '{name}', whose matches are known beforehand: leave it out")


def copies_of_rows(copies: Mapping[str, int | Sequence[int]], name: str, num_rows: int, groups: int) -> np.ndarray:
    """(R,) copies wanted in each row of the set; the `groups` query groups of a layer share a number. Raises
    ConfigError where there are not as many numbers as layers.
    """
    layers = num_rows // groups
    wanted = copies.get(name, 1)
    wanted = [wanted] * layers if isinstance(wanted, int) else wanted
    if len(wanted) != layers:
        raise ConfigError(
            f"{KEY} of set '{name}' names {len(wanted)} layers, but the model predicts {layers}: give one "
            "number for each"
        )
    return np.repeat(wanted, groups)


def bounded(copies: np.ndarray, counts: np.ndarray, usable: np.ndarray | int) -> np.ndarray:
    """copies (R,), counts (B,) targets, usable queries (R, B) or one number -> (R, B): max(1, min(k, Q // (2 n))), and
    0 where there is no target.
    """
    bound = np.maximum(1, np.minimum(copies[:, None], usable // np.maximum(1, 2 * counts)))
    return np.where(counts > 0, bound, 0)


def count_usable(allowed: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """allowed (R, N, Q), whether a target may have a query, the `counts` targets of the images after one another ->
    (R, B): how many queries of the image some target of it may have.
    """
    ends = np.cumsum(counts)
    per_image = [allowed[:, end - n : end].any(1).sum(-1) for end, n in zip(ends, counts, strict=True)]
    return np.stack(per_image, axis=1)


def set_price(cost: np.ndarray, forbidden: np.ndarray, counts: Sequence[int]) -> None:
    """Gives the forbidden pairs of cost (R, N, Q), of images with `counts` targets, a price that no sum of differences
    in their row and image outweighs, so that as few of them as possible are taken. It is the same for all of them: were
    it added, a target without any allowed query would take the one that suits it, which another may need.
    """
    least = cost.min(-1, initial=np.inf)  # (R, N); 1e30 where all are forbidden
    np.copyto(cost, -np.inf, where=forbidden)
    largest = cost.max(-1, initial=-np.inf)
    for end, n in zip(np.cumsum(counts), counts, strict=True):
        if n:
            own = slice(end - n, end)
            top, bottom = largest[:, own].max(1), least[:, own].min(1)
            above = np.nextafter(top, np.float32(np.inf))  # where 1 is lost beside it
            wide = top.astype(np.float64)  # float32 may end below the price
            price = np.maximum(wide + (wide - bottom) * cost.shape[-1] + 1, above)
            price = np.where(np.isfinite(top), price, FORBIDDEN).clip(max=np.finfo(cost.dtype).max).astype(cost.dtype)
            np.copyto(cost[:, own], price[:, None, None], where=forbidden[:, own])
