"""The solver that uses SciPy."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import nn

from align_detr.structures import Predictions, Targets


class SciPySolver:
    """`scipy.optimize.linear_sum_assignment`, for what NumPy cannot tell alone; k copies are k rows of a problem."""

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
        """See `Solver`."""
        return assign_all(cost, counts, copies)

    def match(
        self, costs: Collection[nn.Module], preds: Predictions, targets: Targets, copies: np.ndarray
    ) -> np.ndarray | None:
        """See `Solver`: SciPy needs the costs."""
        return None


def assign_all(cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
    """`assign` in every row and image: cost (R, N, Q), the `counts` targets of the images after one another, and how
    many copies each row makes of the targets of each image, (R, B), 0 to leave them out -> (4, M): row, image, query
    and target of every pair, ordered by row, image and query.

    Where all targets of an image can have their cheapest queries, that is the solution; only the others are solved.
    SciPy's solver holds Python's lock: threads were measured not to help.
    """
    rows, _, queries = cost.shape
    image = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum([0, *counts])
    wanted = np.minimum(copies, queries)[:, image]
    own = _cheapest(cost, wanted.max(initial=0))
    row, which, rank = np.nonzero(np.arange(own.shape[-1]) < wanted[..., None])
    problem, query = row * len(counts) + image[which], own[row, which, rank]
    place = problem * queries + query
    clashing = np.bincount(place, minlength=1)[place] > 1
    unsolved = np.unique(problem[clashing])
    solved = ~np.isin(problem, unsolved)
    found = [np.stack([problem, query, which - starts[image[which]]])[:, solved]]

    def pairs_of(number: int) -> np.ndarray:
        row, at = divmod(int(number), len(counts))
        block = slice(starts[at], starts[at + 1])
        k = int(copies[row, at])
        query, target = assign(cost[row, block], k, own[row, block, :k])
        return np.stack([np.full_like(query, number), query, target])

    found += [pairs_of(number) for number in unsolved]
    problem, query, target = np.concatenate(found, axis=1)
    order = np.argsort(problem * queries + query)
    return np.stack([*np.divmod(problem, max(1, len(counts))), query, target])[:, order]


def _cheapest(cost: np.ndarray, k: int) -> np.ndarray:
    """The k cheapest queries of each target, cheapest first: cost (R, N, Q) -> (R, N, k). As k is small, k minima are
    many times faster than a partition; what was found is infinite meanwhile.
    """
    own = np.empty((*cost.shape[:2], k), np.int64)
    found = np.empty(own.shape, cost.dtype)
    for rank in range(k):
        at = own[..., rank : rank + 1]
        at[:] = cost.argmin(-1, keepdims=True)
        found[..., rank : rank + 1] = np.take_along_axis(cost, at, -1)
        np.put_along_axis(cost, at, np.inf, -1)
    np.put_along_axis(cost, own, found, -1)
    return own


def assign(cost: np.ndarray, copies: int, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest way to give each of n targets `copies` queries of its own, or every query one target where there are
    fewer: cost (n, Q), finite -> query, target, (m,) each, by ascending query. `own` are the cheapest queries of each
    target, (n, copies), where they are known.
    """
    queries = None
    if 1 <= copies and len(cost) * copies < cost.shape[1]:
        own = _cheapest(cost[None], copies)[0] if own is None else own
        queries = _assign_by_clashes(cost, copies, own)
    if queries is None:
        targets, queries = _solve(cost, copies)
    else:
        targets = np.repeat(np.arange(len(cost)), copies)
    order = np.argsort(queries)
    return queries[order], targets[order]


def _solve(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Target and query, each target standing `copies` times in the problem."""
    rows, queries = linear_sum_assignment(np.repeat(cost, copies, axis=0) if copies > 1 else cost)
    return rows // copies, queries


def _assign_by_clashes(cost: np.ndarray, copies: int, own: np.ndarray) -> np.ndarray | None:
    """The same, solved for few targets: (n k,) queries, those of target 0 first, or None where that does not pay.

    Each target takes its k cheapest queries, `own` (n, k); those that clash are solved together, and whom their
    solution clashes with joins them, until none does. Both parts then have their own optimum, which no common solution
    can beat. Where many targets compete, they would all be solved in the end, some several times.
    """
    own = own.copy()
    joint = np.zeros(len(cost), bool)
    while True:
        clashing = (np.bincount(own.ravel(), minlength=cost.shape[1])[own] > 1).any(axis=1)
        if not clashing.any():
            return own.ravel()
        joint |= clashing
        if joint.sum() > max(16, len(cost) // 4):
            return None
        own[joint] = _solve(cost[joint], copies)[1].reshape(-1, copies)
