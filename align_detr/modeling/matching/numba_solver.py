"""The solver that numba compiles."""

import importlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch

from align_detr.modeling.matching.costs import Cost, FocalCost, GIoUCost, L1Cost, SoftmaxCost
from align_detr.modeling.matching.pairs import image_and_index
from align_detr.modeling.matching.scipy_solver import assign_not_finite
from align_detr.structures import Predictions, Targets

LARGE = 2**20  # from this number of pairs of queries and targets, threads pay


class NumbaSolver:
    """Solver compiled by numba, several times as fast (`numba_kernels.py`): a target bids for all its copies at once.

    On a CPU it computes the usual costs itself: the focal cost with gamma 2 or the softmax cost, with L1, GIoU or both.
    Large problems take as many threads as PyTorch does. Raise ImportError without numba.
    """

    def __init__(self) -> None:
        _kernels()

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
        """See `Solver`; SciPy solves where a cost is infinite."""
        rows, _, queries = cost.shape
        owner = np.empty((rows, len(counts), queries), np.int64)
        starts = np.cumsum([0, *counts])
        given = np.ascontiguousarray(cost), starts, np.asarray(copies, np.int64)
        if not all(_in_threads(_kernels().assign_problems, cost.size, *given, owner=owner)):
            return assign_not_finite(cost, counts, copies)
        return _pairs_of(owner)

    def match(
        self, costs: Collection[Cost], preds: Predictions, targets: Targets, copies: np.ndarray
    ) -> np.ndarray | None:
        """See `Solver`."""
        if not _are_usual(costs):
            return None
        counts, classes = targets.counts, preds.logits.shape[-1]
        if preds.logits.shape[:3] != preds.boxes.shape[:3] or len(counts) != preds.boxes.shape[1]:
            return None  # as with labels beyond the classes, compiled code would read beyond the end
        at = torch.from_numpy(np.stack(image_and_index(counts)))  # (2, N)
        labels = targets.labels[at[0], at[1]].numpy()  # (N,)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            return None
        truth = targets.boxes[at[0], at[1]].float()  # (N, 4): x, y and, below, half the width and height
        truth[:, 2:] /= 2
        owner = np.empty(preds.boxes.shape[:3], np.int64)
        focal = any(isinstance(cost, FocalCost) for cost in costs)
        given = (
            (preds.logits if focal else preds.logits.softmax(-1)).detach().contiguous().numpy(),
            preds.boxes.detach().contiguous().numpy(),
            labels,
            truth.numpy(),
            np.cumsum([0, *counts]),
            np.asarray(copies, np.int64),
            _weights(costs),
            focal,
        )
        pairs = preds.boxes.shape[0] * sum(counts) * preds.boxes.shape[2]
        finite = _in_threads(_kernels().match_problems, pairs, *given, owner=owner)
        return _pairs_of(owner) if all(finite) else None


def _are_usual(costs: Collection[Cost]) -> bool:
    """Return whether the costs are one of the class and, besides, L1, GIoU or both."""
    kinds = [type(cost) for cost in costs]
    of_class = [kind for kind in kinds if kind in (FocalCost, SoftmaxCost)]
    known = len(set(kinds)) == len(kinds) and {*kinds} <= {FocalCost, SoftmaxCost, L1Cost, GIoUCost}
    return known and len(of_class) == 1 and all(cost.gamma == 2 for cost in costs if isinstance(cost, FocalCost))


def _weights(costs: Collection[Cost]) -> tuple[np.float32, ...]:
    """Return alpha, the weights of the class, L1 and GIoU, and GIoU's eps, as `match_problems` takes them."""
    alpha = of_class = l1 = giou = eps = 0.0
    for cost in costs:
        if isinstance(cost, FocalCost):
            alpha, of_class = cost.alpha, cost.weight
        elif isinstance(cost, SoftmaxCost):
            of_class = cost.weight
        elif isinstance(cost, L1Cost):
            l1 = cost.weight
        elif isinstance(cost, GIoUCost):
            giou, eps = cost.weight, cost.eps
    return tuple(np.float32(x) for x in (alpha, of_class, l1, giou, eps))


def _in_threads(kernel: Callable, pairs: int, *given: Any, owner: np.ndarray) -> list[Any]:
    """Return what `kernel` returns for some of the R B problems at a time, whose solution it writes into `owner`
    (R, B, Q); side by side if they have many `pairs`.
    """
    rows, images, _ = owner.shape
    numbers = np.arange(rows * images)
    threads = torch.get_num_threads() if pairs >= LARGE else 1
    if threads == 1:
        return [kernel(numbers, *given, owner)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda some: kernel(some, *given, owner), np.array_split(numbers, 4 * threads)))


def _pairs_of(owner: np.ndarray) -> np.ndarray:
    """Return the pairs (4, M) from the target of each query or -1, (R, B, Q)."""
    where = np.nonzero(owner >= 0)
    return np.stack([*where, owner[where]])


def _kernels() -> ModuleType:
    """Return the kernels. Importing numba takes half a second, compiling about 9 more, once per machine. They are no
    attribute of the solver, since a module cannot be copied, and models are.
    """
    return importlib.import_module("align_detr.modeling.matching.numba_kernels")
