"""The matcher against exhaustive search, and at its limits."""

import dataclasses
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from parts import random_set
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou
from align_detr.modeling.assignment import assign
from align_detr.modeling.matcher import (
    Cost,
    GIoUCost,
    HungarianMatcher,
    L1Cost,
    PositionModulatedCost,
    SoftmaxCost,
    in_one_copy,
)
from align_detr.structures import Match, Predictions, Targets


@pytest.fixture
def matcher() -> HungarianMatcher:
    torch.manual_seed(0)
    return HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)])


def triples(match: Match, row: int, image: int) -> set[tuple[int, int]]:
    here = (match.row == row) & (match.image == image)
    return set(zip(match.query[here].tolist(), match.target[here].tolist(), strict=True))


def test_cost_by_hand() -> None:
    preds = Predictions(
        logits=torch.tensor([[[[0.0, 0.0]]]]), boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4]]]]), softmax=True
    )
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    matcher = HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)])
    # probability 1/2; L1 0.2; the target is half of the prediction: IoU 1/2, hull = union
    assert matcher.cost(preds, targets).item() == pytest.approx(-0.5 + 5 * 0.2 - 2 * 0.5, rel=1e-5)


def test_equals_exhaustive_search(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=2, counts=[3, 0, 1], queries=5)
    match = matcher({"main": preds}, targets)["main"]
    cost = matcher.cost(preds, targets)
    for row in range(2):
        for image, n in enumerate(targets.counts):
            best = min(
                permutations(range(5), n),
                key=lambda queries: sum(cost[row, image, q, t].item() for t, q in enumerate(queries)),
            )
            assert triples(match, row, image) == {(q, t) for t, q in enumerate(best)}


def test_order_of_images_plays_no_part(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=2, counts=[4, 1, 0, 7], queries=6)
    order = [2, 0, 3, 1]
    matcher.copies = {"main": [3, 1]}
    match = matcher({"main": preds}, targets)["main"]
    mixed = Targets(labels=targets.labels[order], boxes=targets.boxes[order], counts=[targets.counts[i] for i in order])
    swapped = matcher(
        {"main": Predictions(logits=preds.logits[:, order], boxes=preds.boxes[:, order], softmax=True)}, mixed
    )["main"]
    for row in range(2):
        for new, old in enumerate(order):
            assert triples(swapped, row, new) == triples(match, row, old)


@pytest.mark.parametrize(("count", "wanted", "expected"), [(1, 3, 3), (2, 3, 2), (4, 3, 1), (9, 3, 1)])
def test_copies_are_bounded_in_each_image(matcher: HungarianMatcher, count: int, wanted: int, expected: int) -> None:
    """10 queries: at most 5 may go to copies; 1 target x 3, 2 targets x 2, 4 and 9 targets x 1."""
    matcher.copies = {"main": wanted}
    preds, targets = random_set(rows=1, counts=[count], queries=10)
    match = matcher({"main": preds}, targets)["main"]
    assert match.target.bincount(minlength=count).tolist() == [expected] * count
    assert len(set(match.query.tolist())) == count * expected


def test_more_objects_than_queries(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[9, 2], queries=4)
    match = matcher({"main": preds}, targets)["main"]
    first, second = triples(match, 0, 0), triples(match, 0, 1)
    assert {q for q, _ in first} == {0, 1, 2, 3} and len({t for _, t in first}) == 4
    assert {t for _, t in second} == {0, 1}


def test_padding_targets_play_no_part(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2, 1], queries=4)
    longer = Targets(
        labels=torch.cat([targets.labels, torch.zeros(2, 5, dtype=torch.int64)], dim=1),
        boxes=torch.cat([targets.boxes, torch.rand(2, 5, 4)], dim=1),
        counts=targets.counts,
    )
    a, b = matcher({"main": preds}, targets)["main"], matcher({"main": preds}, longer)["main"]
    assert torch.equal(a.query, b.query) and torch.equal(a.target, b.target)


def test_forbidden_pairs_stay_unmatched(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    preds.allowed = torch.tensor([[[True, False], [True, False], [False, False]]])
    assert {t for _, t in triples(matcher({"main": preds}, targets)["main"], 0, 0)} == {0}
    preds.valid = torch.tensor([[False, True, True]])
    assert triples(matcher({"main": preds}, targets)["main"], 0, 0) == {(1, 0)}


def test_known_matches_are_kept(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    known = Match(*torch.zeros(4, 1, dtype=torch.int64))
    preds.match = known
    assert matcher({"dn": preds}, targets)["dn"] is known


def test_a_prediction_that_is_not_finite(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=2, counts=[1, 2], queries=4)
    with torch.no_grad():
        preds.boxes[1, 1, 2:, 0] = float("nan")
    with pytest.raises(ValueError, match="set 'main', layer 1, image number 1 of the batch, query 2"):
        matcher({"main": preds}, targets)


def test_costs_are_float32_under_autocast(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    expected = matcher.cost(preds, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(matcher.cost(preds, targets), expected)


def test_class_agnostic_sets_ask_for_class_0(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2, 1], queries=4)
    agnostic = dataclasses.replace(preds, class_agnostic=True)
    zeros = Targets(labels=torch.zeros_like(targets.labels), boxes=targets.boxes, counts=targets.counts)
    labels = targets.labels.clone()
    assert torch.equal(matcher.cost(agnostic, targets), matcher.cost(preds, zeros))
    assert torch.equal(targets.labels, labels)


def test_both_ways_to_compute_costs_agree(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=3, counts=[2, 0, 7], queries=5)
    preds.valid = torch.rand(3, 5) > 0.3
    preds.allowed = torch.rand(3, 5, 7) > 0.3
    expected = matcher.cost(preds, targets)
    for own in (matcher._in_cache(preds, targets), matcher._at_once(preds, targets)):
        assert own.shape == (3, 9, 5)
        assert_close(own[:, :2].transpose(1, 2), expected[:, 0, :, :2])
        assert_close(own[:, 2:].transpose(1, 2), expected[:, 2])


def test_tensors_keep_their_shapes_in_one_copy() -> None:
    tensors = [torch.rand(2, 0, 3), torch.rand(4, 1), torch.rand(2, 3)]
    for a, b in zip(in_one_copy(tensors), tensors, strict=True):
        assert torch.equal(torch.from_numpy(a), b)


def test_position_modulated_cost_by_hand() -> None:
    """Probability 1/2 and a box of half the size inside the other: GIoU 1/2, v = 3/4, p v^0.5 = 0.4330."""
    preds = Predictions(logits=torch.zeros(1, 1, 1, 1), boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4]]]]))
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    p = 0.5 * 0.75**0.5
    expected = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
    assert PositionModulatedCost(weight=1.0)(preds, targets).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_giou_cost_equals_the_plain_formula(eps: float) -> None:
    preds, targets = random_set(rows=2, counts=[6], queries=8)
    with torch.no_grad():
        preds.boxes[0, 0, :4, 2:] = targets.boxes[0, :4, 2:] = 0.0
        preds.boxes[0, 0, :2] = targets.boxes[0, :2]
    expected = pairwise_giou(cxcywh_to_xyxy(preds.boxes), cxcywh_to_xyxy(targets.boxes), eps)
    assert_close(GIoUCost(weight=1.0, eps=eps)(preds.float(), targets), -expected.detach(), atol=2e-6, rtol=0)


def test_copies_of_a_layer_hold_for_its_groups(matcher: HungarianMatcher) -> None:
    """Two layers of two groups, 2 copies in the first layer."""
    preds, targets = random_set(rows=4, counts=[2], queries=8)
    preds.groups, matcher.copies = 2, {"main": [2, 1]}
    assert matcher({"main": preds}, targets)["main"].row.bincount().tolist() == [4, 4, 2, 2]
    matcher.copies = {"main": [2, 1, 1, 1]}
    with pytest.raises(ConfigError, match="names 4 layers, but the model predicts 2"):
        matcher({"main": preds}, targets)


def test_copies_of_a_set_that_is_not_there(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=8)
    matcher.copies = {"enc": 2}
    with pytest.raises(ConfigError, match="names the set 'enc', but the model predicts main"):
        matcher({"main": preds}, targets)


def break_one(preds: Predictions, what: str, value: float) -> None:
    with torch.no_grad():
        getattr(preds, what)[1, 2, 3, 1] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["logits", "boxes"])
@pytest.mark.parametrize("known", [False, True])
def test_every_nonfinite_prediction_is_found(matcher: HungarianMatcher, what: str, value: float, known: bool) -> None:
    """Also in an image without targets, in a class that nothing has, and where the match is known."""
    preds, targets = random_set(rows=2, counts=[1, 2, 0], queries=4)
    other, _ = random_set(rows=1, counts=[1, 2, 0], queries=3)
    break_one(preds, what, value)
    if known:
        preds.match = Match.empty("cpu")
    with pytest.raises(ValueError, match="set 'dn', layer 1, image number 2 of the batch, query 3 is the first"):
        matcher({"main": other, "dn": preds}, targets)


def test_a_cost_that_is_not_finite_is_found() -> None:
    class Broken(Cost):
        def forward(self, preds: Predictions, targets: Targets) -> torch.Tensor:
            total = preds.boxes.new_zeros(*preds.boxes.shape[:3], targets.labels.shape[1])
            return torch.where(preds.boxes[..., :1] > 0.9, float("nan"), total)

    preds, targets = random_set(rows=2, counts=[1, 2], queries=4)
    with torch.no_grad():
        preds.boxes[1, 1, 2, 0] = 0.95
    preds.groups = 2
    with pytest.raises(ValueError, match="set 'main', layer 0, group 1, image number 1 of the batch, query 2"):
        HungarianMatcher(costs=[Broken(weight=1.0)])({"main": preds}, targets)


def test_skipping_counts_and_warns(matcher: HungarianMatcher, caplog: pytest.LogCaptureFixture) -> None:
    matcher.on_nonfinite = "skip"
    preds, targets = random_set(rows=2, counts=[1, 2, 3], queries=4)
    with EventStorage(0) as storage:
        matcher({"main": preds}, targets)
        assert storage.latest()["skipped_images"][0] == 0
        break_one(preds, "boxes", float("nan"))
        match = matcher({"main": preds}, targets)["main"]
        assert storage.latest()["skipped_images"][0] == 1
    assert match.skipped == (2,) and set(match.image.tolist()) == {0, 1}
    assert "set 'main', layer 1, image number 2 of the batch, query 3" in caplog.text
    with pytest.raises(ConfigError, match='on_nonfinite is "ignore"'):
        HungarianMatcher(costs=list(matcher.costs), on_nonfinite="ignore")


@pytest.mark.parametrize("seed", range(20))
def test_copies_solved_by_clashes_equal_repeated_columns(seed: int) -> None:
    """From hardly any clash to nothing else."""
    generator = np.random.default_rng(seed)
    n, copies = generator.integers(1, 9), int(generator.integers(1, 5))
    queries = int(generator.integers(1, 60))
    cost = generator.random((n, queries)) + generator.choice([0, 1, 10]) * generator.random(queries)
    query, target = assign(cost, copies)
    rows, columns = linear_sum_assignment(np.repeat(cost, copies, axis=0))
    assert sorted(zip(query, target, strict=True)) == sorted(zip(columns, rows // copies, strict=True))
    assert (np.diff(query) > 0).all()
