"""The solver that numba compiles."""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from align_detr.modeling.matching.costs import FocalCost, GIoUCost, L1Cost, SoftmaxCost
from align_detr.modeling.matching.pairs import image_and_index
from align_detr.structures import Predictions, Targets

LARGE = 2**20  # pairs of queries and targets from which on threads pay


class NumbaSolver:
    """Compiled by numba, several times as fast (`numba_kernels.py`): a target bids for all of its copies at once.

    On a CPU the usual costs (one of the focal cost with gamma 2 or the softmax cost, L1, GIoU) are computed within it.
    Large problems take as many threads as PyTorch does. Raises ImportError without numba.
    """

    def __init__(self) -> None:
        _kernels()

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
        """See `Solver`. Raise ValueError for a cost that is not finite, as SciPy does."""
        rows, _, queries = cost.shape
        owner = np.empty((rows, len(counts), queries), np.int64)
        starts = np.cumsum([0, *counts])
        given = np.ascontiguousarray(cost), starts, np.asarray(copies, np.int64)
        if not all(_in_threads(_kernels().assign_problems, cost.size, *given, owner=owner)):
            raise ValueError("the matching costs hold NaN or infinity")
        return _pairs_of(owner)

    def match(
        self, costs: Collection[nn.Module], preds: Predictions, targets: Targets, copies: np.ndarray
    ) -> np.ndarray | None:
        """See `Solver`."""
        terms = {type(cost): cost for cost in costs}
        if not _are_usual(terms, len(costs)):
            return None
        counts, classes = targets.counts, preds.logits.shape[-1]
        if preds.logits.shape[:3] != preds.boxes.shape[:3] or len(counts) != preds.boxes.shape[1]:
            return None  # as with labels beyond the classes, compiled code would read beyond the end
        at = torch.from_numpy(np.stack(image_and_index(counts)))
        labels = targets.labels[at[0], at[1]].numpy()
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            return None
        truth = targets.boxes[at[0], at[1]].float()
        truth[:, 2:] /= 2
        owner = np.empty(preds.boxes.shape[:3], np.int64)
        focal = FocalCost in terms
        given = (
            (preds.logits if focal else preds.logits.softmax(-1)).detach().contiguous().numpy(),
            preds.boxes.detach().contiguous().numpy(),
            labels,
            truth.numpy(),
            np.cumsum([0, *counts]),
            np.asarray(copies, np.int64),
            _weights(terms),
            focal,
        )
        pairs = preds.boxes.shape[0] * sum(counts) * preds.boxes.shape[2]
        finite = _in_threads(_kernels().match_problems, pairs, *given, owner=owner)
        return _pairs_of(owner) if all(finite) else None


def _are_usual(terms: Mapping[type, nn.Module], number: int) -> bool:
    """Whether `number` costs are one of the class, and beside it L1 and GIoU or one of them."""
    classes = terms.keys() & {FocalCost, SoftmaxCost}
    known = classes | (terms.keys() & {L1Cost, GIoUCost})
    return len(classes) == 1 and len(known) == number and getattr(terms.get(FocalCost), "gamma", 2) == 2


def _weights(terms: Mapping[type, nn.Module]) -> tuple[np.float32, ...]:
    """alpha, the weights of the class, L1 and GIoU, and GIoU's eps, as `match_problems` takes them."""
    weight = {kind: cost.weight for kind, cost in terms.items()}
    alpha = terms[FocalCost].alpha if FocalCost in terms else 0.0
    eps = terms[GIoUCost].eps if GIoUCost in terms else 0.0
    of_class = weight.get(FocalCost, weight.get(SoftmaxCost))
    return tuple(np.float32(x) for x in (alpha, of_class, weight.get(L1Cost, 0), weight.get(GIoUCost, 0), eps))


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
    """(R, B, Q), the target of each query or -1 -> (4, M)."""
    where = np.nonzero(owner >= 0)
    return np.stack([*where, owner[where]])


def _kernels() -> ModuleType:
    """Importing numba takes half a second, compiling about 9 more, once for a machine. Not kept as an attribute, as a
    module cannot be copied, and models are.
    """
    return importlib.import_module("align_detr.modeling.matching.numba_kernels")
