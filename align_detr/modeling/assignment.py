"""The assignment problem of one image, on the host."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def assign(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest way to give each of n targets `copies` queries of its own, or every query one target where there are
    fewer: cost (n, Q) -> query, target, (m,) each, by ascending query.
    """
    targets, queries = linear_sum_assignment(np.repeat(cost, copies, axis=0) if copies > 1 else cost)
    order = np.argsort(queries)
    return queries[order], targets[order] // copies
