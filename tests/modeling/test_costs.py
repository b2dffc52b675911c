"""Costs and assignment problems, which the matcher joins."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou, pairwise_iou
from align_detr.modeling.matcher import (
    Cost,
    FocalCost,
    GIoUCost,
    HighOrderCost,
    HungarianMatcher,
    L1Cost,
    PositionModulatedCost,
    SoftmaxCost,
)
from align_detr.modeling.matching import pairs
from align_detr.modeling.matching.scipy_solver import assign, assign_all
from align_detr.structures import Predictions, Targets
from support.inputs import random_set

pytestmark = pytest.mark.usefixtures("solver")


def test_cost_by_hand() -> None:
    preds = Predictions(
        logits=torch.tensor([[[[0.0, 0.0]]]]), boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4]]]]), softmax=True
    )
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    matcher = HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)])
    # probability 1/2; L1 0.2; the target is half of the prediction: IoU 1/2, hull = union
    assert matcher.own_costs(preds, targets).item() == pytest.approx(-0.5 + 5 * 0.2 - 2 * 0.5, rel=1e-5)


def test_costs_are_float32_under_autocast(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    expected = matcher.own_costs(preds, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(matcher.own_costs(preds, targets), expected)


COSTS = [
    SoftmaxCost(weight=1.0),
    FocalCost(weight=1.0),
    PositionModulatedCost(weight=1.0),
    HighOrderCost(weight=1.0),
    L1Cost(weight=1.0),
    GIoUCost(weight=1.0),
]


@pytest.mark.parametrize("cost", COSTS, ids=[type(x).__name__ for x in COSTS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cost_alone_is_float32(cost: Cost, dtype: torch.dtype) -> None:
    """Predictions in half precision cost what the same rounded numbers cost in float32."""
    torch.manual_seed(0)
    preds, targets = random_set(rows=2, counts=[2, 1], queries=3)
    half = dataclasses.replace(preds, logits=preds.logits.to(dtype), boxes=preds.boxes.to(dtype))
    assert_close(cost(half, targets), cost(half.float(), targets), rtol=1e-6, atol=0)


def test_class_agnostic_sets_ask_for_class_0(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2, 1], queries=4)
    agnostic = dataclasses.replace(preds, class_agnostic=True)
    zeros = Targets(labels=torch.zeros_like(targets.labels), boxes=targets.boxes, counts=targets.counts)
    labels = targets.labels.clone()
    assert torch.equal(matcher.own_costs(agnostic, targets), matcher.own_costs(preds, zeros))
    assert torch.equal(targets.labels, labels)


class Shifted(L1Cost):
    """Cost of a user's, derived from one of the library."""

    def forward(self, preds: Predictions, targets: Targets) -> torch.Tensor:
        return super().forward(preds, targets) + preds.boxes[..., :1]


@pytest.mark.parametrize("size", [1, 12, 40, 2**16])
@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
def test_costs_of_pairs_in_parts_equal_all_costs(monkeypatch, size: int, distinct: bool, softmax: bool) -> None:
    """Any size of parts gives the same costs, with `distinct` targets, as on a CPU, and without, as on a device."""
    monkeypatch.setattr(pairs, "CACHED_PAIRS", size)
    if not distinct:
        monkeypatch.setattr(pairs, "_distinct", lambda *_: None)
    torch.manual_seed(0)
    preds, targets = random_set(rows=3, counts=[0, 2, 0, 7], queries=5, num_classes=2, softmax=softmax)
    costs = (
        [SoftmaxCost(weight=0.7)]
        if softmax
        else [FocalCost(weight=2.0), PositionModulatedCost(weight=0.3), HighOrderCost(weight=0.9)]
    )
    matcher = HungarianMatcher(costs=[*costs, L1Cost(weight=5.0), Shifted(weight=1.5), GIoUCost(weight=2.0)])
    for hidden in (False, True):
        if hidden:
            preds.valid = torch.rand(4, 5) > 0.3
            preds.allowed = torch.rand(4, 5, 7) > 0.3
        expected = sum(cost.weight * cost(preds, targets) for cost in matcher.costs).detach()
        if hidden:
            expected[:, ~(preds.valid[..., None] & preds.allowed)] = 1e30
        own = matcher.own_costs(preds, targets)
        assert own.shape == (3, 9, 5)
        assert_close(own[:, :2].transpose(1, 2), expected[:, 1, :, :2])
        assert_close(own[:, 2:].transpose(1, 2), expected[:, 3])


@pytest.mark.parametrize("cost", [FocalCost(weight=1.0), SoftmaxCost(weight=1.0)])
def test_a_cost_for_another_kind_of_head(cost: Cost) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3, softmax=not cost.softmax)
    with pytest.raises(ConfigError, match=f"{type(cost).__name__} reads s.* but the set 'main' has s"):
        HungarianMatcher(costs=[cost])({"main": preds}, targets)


def test_focal_cost_by_hand() -> None:
    """Logits of 0, 30 and -1e4 have p = 1/2, 1 and 0, where float32 loses 1 - p."""
    preds = Predictions(logits=torch.tensor([[[[0.0, 9.0], [30.0, 9.0], [-1e4, 9.0]]]]), boxes=torch.rand(1, 1, 3, 4))
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.rand(1, 1, 4), counts=[1])
    expected = [(0.25 - 0.75) * 0.25 * math.log(2), 0.75 * math.log(1e-8), -0.25 * math.log(1e-8)]
    assert_close(FocalCost(weight=1.0)(preds, targets).flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_all_problems_at_once_equal_the_solver() -> None:
    """This holds for images without targets, left out, or with more targets than queries; at few and many clashes."""
    generator = np.random.default_rng(0)
    for spread in (0.0, 1.0, 10.0):
        counts, queries = [0, 3, 12, 1, 30, 70, 0], 40
        cost = generator.random((2, sum(counts), queries)) + spread * generator.random(queries)
        copies = np.array([[0, 2, 1, 5, 1, 1, 0], [0, 6, 1, 0, 1, 1, 0]])
        before, expected, starts = cost.copy(), [], np.cumsum([0, *counts])
        for row, image in np.ndindex(copies.shape):
            if copies[row, image]:
                block = cost[row, starts[image] : starts[image + 1]]
                target, query = linear_sum_assignment(np.repeat(block, copies[row, image], axis=0))
                solved = zip(query.tolist(), (target // copies[row, image]).tolist(), strict=True)
                expected += [(row, image, q, t) for q, t in sorted(solved)]
        assert list(map(tuple, assign_all(cost, counts, copies).T.tolist())) == expected
        assert (cost == before).all()


def test_position_modulated_cost_by_hand() -> None:
    """Probability 1/2 and a box of half the size inside the other: GIoU 1/2, v = 3/4, p v^0.5 = 0.4330."""
    preds = Predictions(logits=torch.zeros(1, 1, 1, 1), boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4]]]]))
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    p = 0.5 * 0.75**0.5
    expected = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
    assert PositionModulatedCost(weight=1.0)(preds, targets).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("power", "expected"), [(4.0, -0.5 * 0.5**4), (1.0, -0.25), (0.0, -0.5)])
def test_high_order_cost_by_hand(power: float, expected: float) -> None:
    """Probability 1/2 and a box of half the size inside the other: IoU 1/2."""
    preds = Predictions(logits=torch.zeros(1, 1, 1, 1), boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4]]]]))
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    assert HighOrderCost(weight=1.0, power=power)(preds, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_high_order_cost_equals_the_plain_formula(eps: float) -> None:
    """Of random pairs, of boxes without an area, and of a box with itself."""
    preds, targets = random_set(rows=2, counts=[6], queries=8)
    with torch.no_grad():
        preds.boxes[0, 0, :4, 2:] = targets.boxes[0, :4, 2:] = 0.0
        preds.boxes[0, 0, :2] = targets.boxes[0, :2]
        preds.boxes[1, 0, :6] = targets.boxes[0]
    iou = pairwise_iou(cxcywh_to_xyxy(preds.boxes), cxcywh_to_xyxy(targets.boxes), eps)
    expected = -preds.logits.sigmoid()[:, :, :, targets.labels[0]] * iou**4
    assert_close(HighOrderCost(weight=1.0, eps=eps)(preds, targets), expected.detach(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_no_rounding_takes_the_giou_below_minus_1(eps: float) -> None:
    """GIoU + 1 has a root for boxes of all sizes down to 0 and of all distances."""
    generator = torch.Generator().manual_seed(0)

    def boxes(*shape: int) -> torch.Tensor:
        size = 10 ** (-25 * torch.rand(*shape, 2, generator=generator))
        centre = torch.rand(*shape, 2, generator=generator) * 10 ** (8 * torch.rand(*shape, 1, generator=generator) - 6)
        return torch.cat([centre, torch.where(size < 1e-20, 0.0, size)], -1)

    preds = Predictions(logits=torch.zeros(1, 1, 500, 1), boxes=boxes(1, 1, 500))
    targets = Targets(labels=torch.zeros(1, 500, dtype=torch.int64), boxes=boxes(1, 500), counts=[500])
    giou = -GIoUCost(weight=1.0, eps=eps)(preds, targets)
    assert giou.min() == -1
    assert torch.isfinite(PositionModulatedCost(weight=1.0, eps=eps)(preds, targets)).all()


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_giou_cost_equals_the_plain_formula(eps: float) -> None:
    preds, targets = random_set(rows=2, counts=[6], queries=8)
    with torch.no_grad():
        preds.boxes[0, 0, :4, 2:] = targets.boxes[0, :4, 2:] = 0.0
        preds.boxes[0, 0, :2] = targets.boxes[0, :2]
    expected = pairwise_giou(cxcywh_to_xyxy(preds.boxes), cxcywh_to_xyxy(targets.boxes), eps)
    assert_close(GIoUCost(weight=1.0, eps=eps)(preds.float(), targets), -expected.detach(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(20))
def test_copies_solved_by_clashes_equal_repeated_columns(seed: int) -> None:
    """They are equal from few clashes to clashes of all targets."""
    generator = np.random.default_rng(seed)
    n, copies = generator.integers(1, 9), int(generator.integers(1, 5))
    queries = int(generator.integers(1, 60))
    cost = generator.random((n, queries)) + generator.choice([0, 1, 10]) * generator.random(queries)
    query, target = assign(cost, copies)
    rows, columns = linear_sum_assignment(np.repeat(cost, copies, axis=0))
    assert sorted(zip(query, target, strict=True)) == sorted(zip(columns, rows // copies, strict=True))
    assert (np.diff(query) > 0).all()
