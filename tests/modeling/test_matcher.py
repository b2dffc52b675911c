"""The matcher against exhaustive search, and at its limits."""

from itertools import permutations

import pytest
import torch
from parts import random_set

from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
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
    with pytest.raises(ValueError, match="set 'main', layer 1, image 1 of the batch, query 2"):
        matcher({"main": preds}, targets)


def test_costs_are_float32_under_autocast(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    expected = matcher.cost(preds, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(matcher.cost(preds, targets), expected)
