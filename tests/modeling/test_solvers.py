"""The solvers that a matcher can be told to use: each against exhaustive search, both against each other."""

import copy
import importlib.util
import pickle
import sys
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou
from align_detr.lazy_config import load_config
from align_detr.modeling.matcher import Cost, FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.modeling.matching import numba_solver
from align_detr.modeling.matching.numba_solver import NumbaSolver
from align_detr.modeling.matching.scipy_solver import SciPySolver
from align_detr.modeling.matching.solvers import solver_of
from align_detr.structures import Match, Predictions, Targets
from support.inputs import random_set

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
KERNELS = "align_detr.modeling.matching.numba_kernels"
FOCAL = [FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)]
SOFTMAX = [SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)]


def solved(solver: SciPySolver, cost: np.ndarray, copies: int) -> tuple[list[int], list[int]]:
    """Return queries and targets of one problem, cost (n, Q)."""
    row, image, query, target = solver.assign_all(cost[None].copy(), [len(cost)], np.array([[copies]]))
    assert not row.any() and not image.any()
    return query.tolist(), target.tolist()


def check(solver: SciPySolver, cost: np.ndarray, copies: int, best: float) -> None:
    """Check that the sum is the least, no query is taken twice, and every target has `copies`, or all are taken."""
    query, target = solved(solver, cost, copies)
    assert len(query) == len(set(query)) == min(len(cost) * copies, cost.shape[1]) and query == sorted(query)
    times = np.bincount(target, minlength=len(cost))
    assert (times <= copies).all()
    assert cost.astype(np.float64)[target, query].sum() == pytest.approx(best, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("shape", [(3, 3), (2, 6), (6, 2), (1, 5), (5, 1), (0, 4), (4, 0)])
@pytest.mark.parametrize("values", ["distinct", "ties", "equal", "forbidden"])
def test_equals_exhaustive_search(solver: SciPySolver, shape: tuple[int, int], values: str) -> None:
    """The sums are equal, in float64: in float32, 1e6 would round the costs around 1."""
    generator = np.random.default_rng(sum(shape))
    cost = generator.normal(size=shape).astype(np.float32)
    cost = {"distinct": cost, "ties": cost.round(), "equal": np.ones_like(cost)}.get(values, cost)
    if values == "forbidden":
        cost[generator.random(shape) < 0.5] = 1e6
    few = cost.astype(np.float64)
    few = few.T if shape[0] > shape[1] else few
    best = min(sum(few[i, q] for i, q in enumerate(some)) for some in permutations(range(max(shape)), min(shape)))
    check(solver, cost, 1, best)


@settings(max_examples=300, deadline=None)
@given(
    n=st.integers(1, 12),
    queries=st.integers(1, 40),
    copies=st.integers(1, 5),
    digits=st.integers(0, 3),
    scale=st.sampled_from([1.0, 1e4]),
    seed=st.integers(0, 2**31 - 1),
)
def test_copies_equal_repeated_rows(
    solver: SciPySolver, n: int, queries: int, copies: int, digits: int, scale: float, seed: int
) -> None:
    """Both sums are equal, also with ties (few digits) and with queries that every target prefers."""
    generator = np.random.default_rng(seed)
    cost = (generator.normal(size=(n, queries)) + generator.normal(size=queries)).round(digits).astype(np.float32)
    cost *= scale
    repeated = np.repeat(cost, copies, axis=0).astype(np.float64)
    check(solver, cost, copies, repeated[linear_sum_assignment(repeated)].sum())


def test_solves_in_float64(solver: SciPySolver) -> None:
    """Columns 0 and 2 cost 3.25 above 2^20, columns 2 and 1 cost 3.3125, which float32 takes for the same."""
    cost = np.array([[1.125, 3.125, 1.0625], [2.0**20 + 2.5, 2.0**20 + 2.25, 2.0**20 + 2.125]], np.float32)
    assert solved(solver, cost, 1)[0] == [0, 2]


def test_copies_by_hand(solver: SciPySolver) -> None:
    """Two copies of two targets: both want query 1, which is worth more to the first."""
    cost = np.array([[0.0, 1.0, 9.0, 9.0], [9.0, 0.5, 1.0, 2.0]], np.float32)
    assert solved(solver, cost, 2) == ([0, 1, 2, 3], [0, 0, 1, 1])


@needs_numba
@pytest.mark.parametrize("large", [0, 10**9])
def test_all_problems(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both solvers find the same pairs, with threads and without."""
    monkeypatch.setattr(numba_solver, "LARGE", large)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    generator = np.random.default_rng(0)
    counts, queries = [0, 3, 12, 1, 30, 70], 40
    cost = (generator.random((2, sum(counts), queries)) + generator.random(queries)).astype(np.float32)
    copies = np.array([[0, 2, 1, 5, 1, 1], [0, 6, 3, 0, 1, 1]])
    found = NumbaSolver().assign_all(cost, counts, copies)
    assert (found == SciPySolver().assign_all(cost, counts, copies)).all()
    assert found.shape[1] == 6 + 12 + 5 + 30 + 40 + 18 + 36 + 30 + 40


def pairs_of(match: Match) -> set[tuple[int, ...]]:
    return set(zip(*(x.tolist() for x in (match.row, match.image, match.query, match.target)), strict=True))


def own_copies(preds: Predictions, targets: Targets, copies: int = 1) -> np.ndarray:
    return np.where(targets.counts, copies, 0)[None].repeat(len(preds.boxes), 0)


@needs_numba
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("large", [0, 10**9])
def test_costs_within_the_solver(softmax: bool, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs equal those from PyTorch's costs, in a batch and image by image; one image has no target."""
    monkeypatch.setattr(numba_solver, "LARGE", large)
    preds, targets = random_set(rows=3, counts=[3, 0, 9, 30], queries=24, num_classes=5)
    preds = replace(preds, softmax=softmax)
    costs, solver = SOFTMAX if softmax else FOCAL, NumbaSolver()
    copies = own_copies(preds, targets, 2)
    found = solver.match(costs, preds, targets, copies)
    cost = HungarianMatcher(costs=costs).own_costs(preds, targets).numpy()
    assert (found == SciPySolver().assign_all(cost, targets.counts, copies)).all()
    assert found.shape[1] == 3 * (6 + 18 + 24)


@needs_numba
def test_focal_cost_of_any_logit() -> None:
    """Costs equal the formula in float64, from saturated logits to those around 0."""
    kernels = pytest.importorskip(KERNELS)
    x = np.concatenate([np.linspace(-30, 30, 20001), [-1e4, -100, -88, 0, 88, 100, 1e4]]).astype(np.float32)
    p = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))
    # 1 - p is what float32 can tell of it
    q = 1 - p.astype(np.float32).astype(np.float64)
    expected = 3 * (0.6 * p**2 * np.log(q + 1e-8) - 0.4 * q**2 * np.log(p + 1e-8))
    found = x.copy()
    kernels.focal_(found, np.float32(0.4), np.float32(3), *np.empty((3, len(x)), np.float32))
    near = np.abs(x) < 8  # beyond, the rounding of p decides on 1 - p
    np.testing.assert_allclose(found[near], expected[near], rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(
        found, FocalCost(weight=3, alpha=0.4)._focal(torch.from_numpy(x).sigmoid()) * 3, rtol=1e-5, atol=2e-6
    )


@needs_numba
def test_logarithm() -> None:
    kernels = pytest.importorskip(KERNELS)
    x = np.exp(np.linspace(np.log(1.2e-38), np.log(3e38), 100001)).astype(np.float32)
    found = x.copy()
    kernels.log_(found, np.empty_like(x))
    np.testing.assert_allclose(found, np.log(x.astype(np.float64)), rtol=2e-7, atol=1e-7)


@needs_numba
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_box_costs(eps: float) -> None:
    """Costs equal `layers.boxes` in float64, for boxes without size, touching, equal and separate ones."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(40, 4, generator=generator)
    boxes[:3] = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.3, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    truth = torch.cat([boxes[:3], torch.rand(7, 4, generator=generator) * 0.1])
    half = torch.tensor([1, 1, 0.5, 0.5])
    C, class_cost = np.empty((10, 40), np.float32), generator_values(3, 40)
    slot = np.arange(10) % 3
    scales = (np.float32(x) for x in (5, 2, eps))
    pytest.importorskip(KERNELS).box_costs(
        C, class_cost, slot, (boxes * half).T.contiguous().numpy(), (truth * half).numpy(), *scales
    )
    wide_boxes, wide_truth = boxes.double(), truth.double()
    giou = pairwise_giou(cxcywh_to_xyxy(wide_truth), cxcywh_to_xyxy(wide_boxes), eps)
    expected = class_cost[slot] + 5 * torch.cdist(wide_truth, wide_boxes, p=1).numpy() - 2 * giou.numpy()
    np.testing.assert_allclose(C, expected, rtol=1e-5, atol=1e-5)


def generator_values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class FarFromTheCorner(Cost):
    """Cost of a user's."""

    def forward(self, preds: Predictions, targets: Targets) -> torch.Tensor:
        return preds.boxes[..., :1].expand(-1, -1, -1, targets.labels.shape[1])


@needs_numba
@pytest.mark.parametrize(
    "costs",
    [
        [FocalCost(weight=2.0, gamma=1.5), L1Cost(weight=5.0)],
        [L1Cost(weight=5.0)],
        [FocalCost(weight=2.0), L1Cost(weight=5.0), L1Cost(weight=1.0)],
        [FocalCost(weight=2.0), L1Cost(weight=5.0), FarFromTheCorner(weight=1.0)],
    ],
    ids=["gamma", "no class", "twice", "user"],
)
def test_other_costs_are_computed_first(costs: list[Cost]) -> None:
    preds, targets = random_set(rows=2, counts=[3, 9], queries=24)
    preds = replace(preds, softmax=False)
    assert NumbaSolver().match(costs, preds, targets, own_copies(preds, targets)) is None
    expected, found = (
        pairs_of(HungarianMatcher(costs=costs, solver=name)({"main": preds}, targets)["main"])
        for name in ("scipy", "numba")
    )
    assert found == expected and len(found) == 24


@needs_numba
@pytest.mark.parametrize("box", [float("nan"), float("inf"), 3e38])
def test_costs_that_are_not_finite(box: float) -> None:
    """They are left to the matcher, which names them; also if a prediction is finite and its cost is not."""
    preds, targets = random_set(rows=2, counts=[3, 2], queries=8)
    preds.boxes.data[1, 0, 5, 0] = box
    assert NumbaSolver().match(SOFTMAX, preds, targets, own_copies(preds, targets)) is None
    with pytest.raises(NonFinitePrediction, match="set 'main', layer 1, image number 0 of the batch, query 5"):
        HungarianMatcher(costs=SOFTMAX, solver="numba")({"main": preds}, targets)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_logit_that_no_cost_reads(solver: SciPySolver, value: float) -> None:
    """Its image is named, or left out, as with costs of PyTorch."""
    preds, targets = random_set(rows=2, counts=[3, 2], queries=8, softmax=False)
    targets.labels[:] = 0
    preds.logits.data[1, 0, 5, 2] = value
    with pytest.raises(NonFinitePrediction, match="set 'main', layer 1, image number 0 of the batch, query 5"):
        HungarianMatcher(costs=FOCAL)({"main": preds}, targets)
    with EventStorage() as storage:
        match = HungarianMatcher(costs=FOCAL, on_nonfinite="skip")({"main": preds}, targets)["main"]
    assert match.image.tolist() == [1] * 4 and match.skipped == (0,)
    assert storage.latest()["skipped_images"][0] == 1


def test_a_set_of_one_class(solver: SciPySolver) -> None:
    """The targets' classes play no part: the two logits are those of object and background."""
    preds, targets = random_set(rows=1, counts=[4], queries=9, num_classes=1)
    preds = replace(preds, class_agnostic=True)
    targets.labels[:] = torch.tensor([0, 1, 1, 0])
    costs = [SoftmaxCost(weight=1.0)]
    match = HungarianMatcher(costs=costs)({"enc": preds}, targets)["enc"]
    certain = preds.logits.softmax(-1)[0, 0, :, 0].topk(4).indices
    assert match.query.tolist() == sorted(certain.tolist())


@needs_numba
def test_predictions_and_targets_that_do_not_fit() -> None:
    """The solver declines: compiled code would read past the end."""
    preds, targets = random_set(rows=1, counts=[3, 2], queries=8)
    copies = own_copies(preds, targets)
    assert NumbaSolver().match(SOFTMAX, preds, targets, copies) is not None
    fewer_queries = replace(preds, logits=preds.logits[:, :, :7])
    fewer_images = replace(targets, labels=targets.labels[:1], boxes=targets.boxes[:1], counts=[3])
    assert NumbaSolver().match(SOFTMAX, fewer_queries, targets, copies) is None
    assert NumbaSolver().match(SOFTMAX, preds, fewer_images, copies) is None
    targets.labels[0, 1] = preds.logits.shape[-1]
    assert NumbaSolver().match(SOFTMAX, preds, targets, copies) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_solving_what_is_not_finite(solver: SciPySolver, value: float) -> None:
    with pytest.raises(ValueError, match="The matching costs .*: leave such images out"):
        solver.assign_all(np.full((1, 3, 4), value, np.float32), [3], np.array([[1]]))


def test_pairs_of_infinite_cost(solver: SciPySolver) -> None:
    """They are never chosen, with copies either, and other images are solved as without them; NaN is refused though no
    target wants its query.
    """
    inf = np.inf
    cost = np.array([[[0, inf, 5, 1], [1, 2, inf, 3], [7, 8, 9, 6]]], np.float32)  # by hand: 0 + 2; 6
    found = solver.assign_all(cost.copy(), [2, 1], np.array([[1, 1]]))
    assert found.T.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 3, 0]]
    twice = solver.assign_all(cost.copy(), [2, 1], np.array([[2, 1]]))  # the first can have 0, 2, 3, the second 0, 1, 3
    assert twice[2:, :4].T.tolist() in ([[0, 0], [1, 1], [2, 0], [3, 1]], [[0, 1], [1, 1], [2, 0], [3, 0]])
    cost[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match="hold NaN or minus infinity"):
        solver.assign_all(cost, [2, 1], np.array([[1, 1]]))


def test_a_batch_without_images(solver: SciPySolver) -> None:
    preds = Predictions(logits=torch.zeros(2, 0, 5, 3), boxes=torch.rand(2, 0, 5, 4))
    targets = Targets(torch.zeros(0, 1, dtype=torch.int64), torch.rand(0, 1, 4), [])
    match = HungarianMatcher(costs=FOCAL, copies={"main": [3, 1]})({"main": preds}, targets)["main"]
    assert len(match.row) == len(match.target) == 0


@needs_numba
def test_boxes_of_negative_size() -> None:
    """Their union with `eps` may be below 0: PyTorch's costs, by hand 6.0e4 and 8.3, do not clamp it."""
    target = Targets(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[[0.5, 0.5, 0.1, 0.0]]]), [1])
    boxes = torch.tensor([[[[0.5, 0.5, 0.1, -0.3], [0.5, 0.5, -0.2, 0.2]]]])
    preds = Predictions(logits=torch.zeros(1, 1, 2, 1), boxes=boxes)
    for name in ("scipy", "numba"):
        assert HungarianMatcher(costs=FOCAL, solver=name)({"main": preds}, target)["main"].query.tolist() == [1]


def test_the_price_of_forbidden_pairs_is_finite(solver: SciPySolver) -> None:
    """The same holds for costs too large for a larger price in float32: hulls of negative size, without `eps`."""
    torch.manual_seed(0)
    targets = Targets(torch.zeros(1, 6, dtype=torch.int64), torch.rand(1, 6, 4) * torch.tensor([1, 1, 0, 0]), [6])
    boxes = torch.cat([torch.rand(1, 1, 40, 2), torch.full((1, 1, 40, 2), -0.5)], dim=-1)
    preds = Predictions(logits=torch.zeros(1, 1, 40, 1), boxes=boxes, valid=torch.arange(40)[None] % 2 == 1)
    costs = [FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)]
    match = HungarianMatcher(costs=costs)({"main": preds}, targets)["main"]
    assert sorted(match.target.tolist()) == list(range(6)) and (match.query % 2 == 1).all()


@needs_numba
def test_the_matcher_finds_the_same_pairs_with_both() -> None:
    """One set has padding, so that its costs come from PyTorch; those of the other the solver computes."""
    preds, targets = random_set(rows=2, counts=[3, 0, 9, 30], queries=24)
    padded = replace(preds, valid=torch.arange(24)[None] < torch.tensor([24, 24, 20, 10])[:, None])
    sets = {"main": padded, "enc": preds}
    matchers = [HungarianMatcher(costs=SOFTMAX, copies={"main": [3, 1]}, solver=name) for name in ("scipy", "numba")]
    expected, found = (matcher(sets, targets) for matcher in matchers)
    for name in sets:
        assert pairs_of(found[name]) == pairs_of(expected[name])
    assert len(found["main"].row) == 3 * 3 + 3 + 2 * 9 + 2 * 10
    assert len(found["enc"].row) == 2 * (3 + 9 + 24)


def test_a_matcher_can_be_copied(solver: SciPySolver) -> None:
    """It can be copied, as for averaged weights, and pickled."""
    preds, targets = random_set(rows=1, counts=[3], queries=8)
    matcher = HungarianMatcher(costs=SOFTMAX)
    expected = pairs_of(matcher({"main": preds}, targets)["main"])
    for copied in (copy.deepcopy(matcher), pickle.loads(pickle.dumps(matcher))):
        assert type(copied.solver) is type(solver)
        assert pairs_of(copied({"main": preds}, targets)["main"]) == expected


def test_a_config_names_the_solver() -> None:
    cfg = load_config("quickstart/digits.py", ["+model.criterion.matcher.solver=scipy"])
    assert type(instantiate(cfg.model.criterion.matcher).solver) is SciPySolver
    default = HungarianMatcher(costs=[L1Cost(weight=1.0)]).solver
    assert isinstance(default, NumbaSolver) == (importlib.util.find_spec("numba") is not None)


def test_a_matcher_that_matches_nothing_does_not_import_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector is built with its matcher, also for prediction alone."""
    monkeypatch.setattr(numba_solver, "_kernels", lambda: pytest.fail("numba is imported"))
    HungarianMatcher(costs=[L1Cost(weight=1.0)])


def test_names_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match='solver is "hungarian": set it to "auto", "scipy" or "numba"'):
        HungarianMatcher(costs=[L1Cost(weight=1.0)], solver="hungarian")
    monkeypatch.setitem(sys.modules, KERNELS, None)
    with pytest.raises(
        ConfigError, match='"numba", which cannot be imported .*: pip install numba, or set it to "scipy"'
    ):
        HungarianMatcher(costs=[L1Cost(weight=1.0)], solver="numba")


def test_without_numba_scipy_solves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """SciPy replaces a missing numba silently, and a broken one with a warning."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert type(solver_of("auto")) is SciPySolver and not caplog.records
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(numba_solver, "_kernels", lambda: getattr(sys, "numba fails with an attribute"))
    assert type(solver_of("auto")) is SciPySolver
    assert "numba cannot be imported, so SciPy solves the matching" in caplog.text
