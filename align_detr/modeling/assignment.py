"""The assignment problem of one image, on the host."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def assign(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest way to give each of n targets `copies` queries of its own, or every query one target where there are
    fewer: cost (n, Q), finite -> query, target, (m,) each, by ascending query.
    """
    queries = _assign_by_clashes(cost, copies) if 1 < copies and len(cost) * copies < cost.shape[1] else None
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


def _assign_by_clashes(cost: np.ndarray, copies: int) -> np.ndarray | None:
    """The same without k rows for each target: (n k,) queries, those of target 0 first, or None where that does not
    pay.

    Each target takes its k cheapest queries; those that clash are solved together, and whom their solution clashes with
    joins them, until none does. Both parts then have their own optimum, which no common solution can beat.
    """
    own = np.argpartition(cost, copies - 1, axis=1)[:, :copies]
    joint = np.zeros(len(cost), bool)
    while True:
        clashing = (np.bincount(own.ravel(), minlength=cost.shape[1])[own] > 1).any(axis=1)
        if not clashing.any():
            return own.ravel()
        joint |= clashing
        if 2 * joint.sum() > len(cost):
            return None
        own[joint] = _solve(cost[joint], copies)[1].reshape(-1, copies)
