"""The solver by SciPy."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from align_detr.modeling.matching.costs import Cost
from align_detr.structures import Predictions, Targets


class SciPySolver:
    """Solver by `scipy.optimize.linear_sum_assignment`, for problems that need more than NumPy; k copies are k rows."""

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
        """See `Solver`."""
        used = np.repeat(copies > 0, counts, axis=1)  # (R, N)
        finite = np.isfinite(cost.sum(-1, dtype=np.float64)) | ~used
        return (assign_all if finite.all() else assign_not_finite)(cost, counts, copies)

    def match(
        self, costs: Collection[Cost], preds: Predictions, targets: Targets, copies: np.ndarray
    ) -> np.ndarray | None:
        """Return None: SciPy needs the costs."""
        return None


def assign_all(cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
    """Solve `assign` in every row and image: cost (R, N, Q) of the `counts` targets of all images, concatenated, and
    the copies (R, B) that each row makes of an image's targets, 0 to leave them out -> (4, M): row, image, query and
    target of every pair, ordered by row, image and query.

    If all targets of an image can have their cheapest queries, that is the solution; only the others are solved. SciPy
    holds Python's lock: threads do not help.
    """
    rows, _, queries = cost.shape
    image = np.repeat(np.arange(len(counts)), counts)  # (N,)
    starts = np.cumsum([0, *counts])
    wanted = np.minimum(copies, queries)[:, image]  # (R, N)
    cheapest = cheapest_queries(cost, wanted.max(initial=0))  # (R, N, k)
    row, which, rank = np.nonzero(np.arange(cheapest.shape[-1]) < wanted[..., None])  # (M,) each
    problem, query = row * len(counts) + image[which], cheapest[row, which, rank]
    query_of_problem = problem * queries + query
    clashing = np.bincount(query_of_problem, minlength=1)[query_of_problem] > 1  # two targets want it
    unsolved = np.unique(problem[clashing])
    solved = ~np.isin(problem, unsolved)
    found = [np.stack([problem, query, which - starts[image[which]]])[:, solved]]

    def pairs_of(number: int) -> np.ndarray:
        row, at = divmod(int(number), len(counts))
        block = slice(starts[at], starts[at + 1])
        k = int(copies[row, at])
        query, target = assign(cost[row, block], k, cheapest[row, block, :k])
        return np.stack([np.full_like(query, number), query, target])

    found += [pairs_of(number) for number in unsolved]
    problem, query, target = np.concatenate(found, axis=1)
    order = np.argsort(problem * queries + query)
    return np.stack([*np.divmod(problem, max(1, len(counts))), query, target])[:, order]


def assign_not_finite(cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
    """Solve as `assign_all`, where some pairs may cost infinity and are never chosen, problem by problem.

    Raise ValueError for NaN, for minus infinity, and if a problem has no solution of finite cost.
    """
    ends, found = np.cumsum(counts), []
    for row, image in np.argwhere(copies > 0):
        block = cost[row, ends[image] - counts[image] : ends[image]]
        if np.isnan(block).any() or np.isneginf(block).any():
            raise ValueError("The matching costs hold NaN or minus infinity: leave such images out.")
        try:
            target, query = _solve(block, int(copies[row, image]))
        except ValueError:
            raise ValueError(
                "The matching costs are infinite for every assignment of an image: leave such images out."
            ) from None
        order = np.argsort(query)
        found.append(np.stack([np.full_like(query, row), np.full_like(query, image), query[order], target[order]]))
    return np.concatenate(found, axis=1) if found else np.zeros((4, 0), np.int64)


def cheapest_queries(cost: np.ndarray, k: int) -> np.ndarray:
    """Return the k cheapest queries of each target, cheapest first; write infinity into `cost` meanwhile.

    cost (R, N, Q) -> (R, N, k). For small k, k passes of argmin are many times faster than a partition. Entries already
    found are set to inf in `cost` during the loop and restored at the end.
    """
    queries = np.empty((*cost.shape[:2], k), np.int64)
    values = np.empty(queries.shape, cost.dtype)
    for rank in range(k):
        at = queries[..., rank : rank + 1]  # a view: what is written here stays
        at[:] = cost.argmin(-1, keepdims=True)
        values[..., rank : rank + 1] = np.take_along_axis(cost, at, -1)
        np.put_along_axis(cost, at, np.inf, -1)
    np.put_along_axis(cost, queries, values, -1)
    return queries


def assign(cost: np.ndarray, copies: int, cheapest: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the cheapest way to give each of n targets `copies` queries, or, if there are fewer queries, every query one
    target: cost (n, Q), finite -> query, target, (m,) each, by ascending query. `cheapest` holds the cheapest queries
    of each target, (n, copies), if they are known.
    """
    queries = None
    if copies >= 1 and len(cost) * copies < cost.shape[1]:
        cheapest = cheapest_queries(cost[None], copies)[0] if cheapest is None else cheapest
        queries = _assign_by_clashes(cost, copies, cheapest)
    if queries is None:
        targets, queries = _solve(cost, copies)
    else:
        targets = np.repeat(np.arange(len(cost)), copies)
    order = np.argsort(queries)
    return queries[order], targets[order]


def _solve(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Return target and query, (m,) each, with `copies` rows per target in the problem."""
    rows, queries = linear_sum_assignment(np.repeat(cost, copies, axis=0) if copies > 1 else cost)
    return rows // copies, queries


def _assign_by_clashes(cost: np.ndarray, copies: int, cheapest: np.ndarray) -> np.ndarray | None:
    """Solve few of the targets: return (n k,) queries, those of target 0 first, or None if that does not pay.

    Each target takes its k cheapest queries, (n, k). Targets whose choices clash are solved together; targets that
    clash with that solution join them, until nothing clashes. The two groups then are each optimal, and so is their
    union. If many targets compete, they would all be solved in the end, some several times.
    """
    queries = cheapest.copy()  # (n, k)
    joint = np.zeros(len(cost), bool)
    while True:
        clashing = (np.bincount(queries.ravel(), minlength=cost.shape[1])[queries] > 1).any(axis=1)
        if not clashing.any():
            return queries.ravel()
        joint |= clashing
        if joint.sum() > max(16, len(cost) // 4):  # then one solution of all targets is faster
            return None
        queries[joint] = _solve(cost[joint], copies)[1].reshape(-1, copies)
