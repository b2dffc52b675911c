"""Pairs of a query and a target that may not be matched, on the host."""

from collections.abc import Sequence

import numpy as np

FORBIDDEN = 1e30  # what says so in a cost; no other cost comes near it


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
