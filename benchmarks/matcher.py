"""Host time and device synchronisations of the matching step, compared with two plain implementations in the same run.

    python benchmarks/matcher.py [--device cuda] [--repeats 5] [--copies 1 2 3 6]

7 rows (6 decoder layers and the encoder's proposals), 16 images, 900 queries, 80 classes; focal, L1 and GIoU costs. The
numbers of objects are COCO's (mean 7, a long tail, some images without any) or a crowd's (100 to 300 per image). Boxes
and classes of the predictions are random, as before training, or near the objects, as in training. The plain
implementations go layer by layer: `batch` computes the costs of all queries of the batch with all targets of the batch,
as DETR's official code and detrex do, then copies and solves the blocks of each image; `image` computes and copies the
costs image by image. "numba" and "scipy" are this project's matcher with that solver; "solving" is the time for given
costs, by numba and by SciPy (`linear_sum_assignment` on k columns per target). Times are the best of the repeats, with
everything compiled beforehand.
"""

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from unittest import mock

import numpy as np
import scipy
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou
from align_detr.modeling import matcher as matcher_module
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.matching import numba_solver
from align_detr.structures import Match, Predictions, Targets

ROWS, BATCH, QUERIES, CLASSES = 7, 16, 900, 80

Solved = list[tuple[int, int, np.ndarray, np.ndarray]]  # row, image, queries and targets
Pairs = set[tuple[int, int, int, int]]


def object_counts(crowded: bool, generator: np.random.Generator) -> list[int]:
    """Return the objects per image. COCO train2017: mean 7.3, median 5, 1 in 100 images without any, up to 93."""
    if crowded:
        return generator.integers(100, 301, BATCH).tolist()
    return np.minimum(generator.lognormal(1.55, 0.95, BATCH).astype(int), 93).tolist()


def make_inputs(counts: list[int], trained: bool, device: str, seed: int) -> tuple[Predictions, Targets]:
    """Return targets of `counts` objects, and predictions: random, or half of them near an object."""
    torch.manual_seed(seed)
    longest = max([1, *counts])
    boxes = _random_boxes(BATCH, longest)
    labels = torch.randint(CLASSES, (BATCH, longest))
    predicted, logits = _random_boxes(ROWS, BATCH, QUERIES), torch.randn(ROWS, BATCH, QUERIES, CLASSES) - 4
    if trained:
        for image, n in enumerate(counts):
            if n:
                near = torch.arange(QUERIES // 2) % n
                noise = 1 + 0.1 * torch.randn(ROWS, len(near), 4)
                predicted[:, image, : len(near)] = (boxes[image, near] * noise).clamp(0.001, 1)
                logits[:, image, torch.arange(len(near)), labels[image, near]] += 4
    preds = Predictions(logits=logits.to(device), boxes=predicted.to(device))
    return preds, Targets(labels=labels.to(device), boxes=boxes.to(device), counts=counts)


def _random_boxes(*shape: int) -> Tensor:
    """Return boxes with uniform centres and sizes from small to large, as in COCO."""
    return torch.cat([torch.rand(*shape, 2), torch.rand(*shape, 2) ** 2 * 0.5 + 0.01], dim=-1)


def plain_cost(logits: Tensor, boxes: Tensor, labels: Tensor, true_boxes: Tensor) -> Tensor:
    """Return costs (q, n) of logits (q, K), boxes (q, 4), labels (n,) and true_boxes (n, 4)."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    giou = pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes), 1e-6)
    return 2 * (positive - negative)[:, labels] + 5 * torch.cdist(boxes, true_boxes, p=1) - 2 * giou


def solve(cost: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Solve cost (Q, n), each column `copies` times; return query and target."""
    queries, n = cost.shape
    query, target = linear_sum_assignment(np.tile(cost, max(1, min(copies, queries // (2 * n)))))
    return query, target % n


@torch.no_grad()
def batch_by_layer(preds: Predictions, targets: Targets, copies: int) -> Solved:
    """Match with the costs of all pairs of the batch, layer by layer."""
    labels = torch.cat([x[:n] for x, n in zip(targets.labels, targets.counts, strict=True)])
    true_boxes = torch.cat([x[:n] for x, n in zip(targets.boxes, targets.counts, strict=True)])
    found = []
    for row in range(ROWS):
        cost = plain_cost(preds.logits[row].flatten(0, 1), preds.boxes[row].flatten(0, 1), labels, true_boxes)
        blocks = cost.unflatten(0, (BATCH, QUERIES)).cpu().split(targets.counts, dim=-1)
        for image, block in enumerate(blocks):
            if block.shape[-1]:
                found.append((row, image, *solve(block[image].numpy(), copies)))
    return found


@torch.no_grad()
def image_by_image(preds: Predictions, targets: Targets, copies: int) -> Solved:
    """Match each image separately, layer by layer."""
    found = []
    for row in range(ROWS):
        for image, n in enumerate(targets.counts):
            if n:
                cost = plain_cost(
                    preds.logits[row, image],
                    preds.boxes[row, image],
                    targets.labels[image, :n],
                    targets.boxes[image, :n],
                )
                found.append((row, image, *solve(cost.cpu().numpy(), copies)))
    return found


def pairs_of(found: Solved | dict[str, Match]) -> Pairs:
    """Return the pairs as a set."""
    if isinstance(found, dict):
        match = found["main"]
        columns = (x.tolist() for x in (match.row, match.image, match.query, match.target))
        return set(zip(*columns, strict=True))
    return {
        (row, image, q, t)
        for row, image, query, target in found
        for q, t in zip(query.tolist(), target.tolist(), strict=True)
    }


class WaitingOperators(TorchDispatchMode):
    """A counter of the operators whose result the host needs."""

    NAMES = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.unique")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func).startswith(self.NAMES)
        return func(*args, **(kwargs or {}))


def count_synchronisations(
    step: Callable[[], Solved | dict[str, Match]], device: str
) -> tuple[Solved | dict[str, Match], int]:
    """Return the result of one step, and how often the host waits for the device during it.

    On CUDA, PyTorch reports the waits. On a CPU, the calls that would wait for a device are counted: such operators,
    and copies to the host, by `Tensor.cpu` or the matcher's `copy_to_host`.
    """
    if device == "cuda":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            pairs = step()
            torch.cuda.set_sync_debug_mode("default")
        return pairs, sum("synchroniz" in str(w.message) for w in caught)
    copies = []

    def counted(function: Callable) -> Callable:
        return lambda *args: copies.append(1) or function(*args)

    with (
        mock.patch.object(Tensor, "cpu", counted(Tensor.cpu)),
        mock.patch.object(matcher_module, "copy_to_host", counted(matcher_module.copy_to_host)),
        WaitingOperators() as operators,
    ):
        pairs = step()
    return pairs, len(copies) + operators.count


def best_time(step: Callable[[], object], repeats: int) -> float:
    """Return the best host time in seconds; a step of more than 5 s is not repeated."""
    times = []
    while len(times) < repeats and sum(times) < 5:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def solving_times(
    preds: Predictions, targets: Targets, matcher: HungarianMatcher, copies: int, repeats: int
) -> tuple[float, float]:
    """Return the seconds of numba, and of SciPy with one column per copy, for given costs, each in one thread."""
    cost = matcher.own_costs(preds, targets).cpu().numpy()
    counts = np.array(targets.counts)
    bounded = np.where(counts > 0, np.maximum(1, np.minimum(copies, QUERIES // np.maximum(1, 2 * counts))), 0)
    starts = np.cumsum([0, *counts])
    blocks = [cost[row, a:b].T for row in range(ROWS) for a, b in pairwise(starts) if b > a]
    compiled = partial(matcher.solver.assign_all, cost, targets.counts, np.tile(bounded, (ROWS, 1)))
    with mock.patch.object(numba_solver, "LARGE", np.inf):
        compiled_time = best_time(compiled, repeats)
    return compiled_time, best_time(lambda: [solve(block, copies) for block in blocks], repeats)


def measure(
    counts: list[int], trained: bool, copies: int, args: argparse.Namespace
) -> tuple[dict[str, float], list[int]]:
    """Return the seconds of `batch`, `image`, both solvers and solving alone, and the waits of the first three."""
    preds, targets = make_inputs(counts, trained, args.device, seed=0)
    costs = [FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)]
    steps = {"batch": partial(batch_by_layer, preds, targets, copies)}
    steps["image"] = partial(image_by_image, preds, targets, copies)
    for solver in ("scipy", "numba"):
        matcher = HungarianMatcher(costs=costs, copies={"main": copies}, solver=solver)
        steps[solver] = partial(matcher, {"main": preds}, targets)
    found, waits = [], []
    for step in steps.values():
        result, count = count_synchronisations(step, args.device)
        found.append(pairs_of(result))
        waits.append(count)
    assert all(pairs == found[0] for pairs in found), "the implementations disagree"
    assert waits[-1] == waits[-2]
    times = {name: best_time(step, args.repeats) for name, step in steps.items()}
    solving = solving_times(preds, targets, matcher, copies, args.repeats)
    return times | {"numba alone": solving[0], "SciPy alone": solving[1]}, waits[:3]


HEADER = (
    "| objects | predictions | k | `batch` | `image` | numba | scipy | solving: numba | SciPy | `batch` / numba "
    "| `image` / numba | `batch` / scipy | `image` / scipy | waits |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 3, 6])
    args = parser.parse_args()
    if find_spec("numba") is None:
        parser.error("numba is not installed, but the comparison needs it: pip install numba")
    print(
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, SciPy {scipy.__version__}, "
        f"NumPy {np.__version__}, numba {version('numba')}, {torch.get_num_threads()} thread(s), {args.device}\n"
    )
    print(HEADER)
    for crowded in (False, True):
        counts = object_counts(crowded, np.random.default_rng(4))
        for trained in (False, True):
            for copies in args.copies:
                times, waits = measure(counts, trained, copies, args)
                columns = [f"{'crowd' if crowded else 'COCO'}, {sum(counts)}", "near" if trained else "random", copies]
                columns += [
                    f"{times[name] * 1e3:.1f} ms"
                    for name in ("batch", "image", "numba", "scipy", "numba alone", "SciPy alone")
                ]
                columns += [
                    f"{times[plain] / times[ours]:.1f}" for ours in ("numba", "scipy") for plain in ("batch", "image")
                ]
                print("|", " | ".join(map(str, columns)), "|", " / ".join(map(str, waits)), "|", flush=True)


if __name__ == "__main__":
    main()
