"""The matcher against exhaustive search, and at its limits."""

from itertools import permutations

import pytest
import torch
from detectron2.utils.events import EventStorage

from align_detr.errors import ConfigError
from align_detr.modeling.matcher import Cost, HungarianMatcher, L1Cost, in_one_copy
from align_detr.modeling.matching.limits import Limits
from align_detr.structures import Match, Predictions, Targets
from support.inputs import padded_costs, random_set

pytestmark = pytest.mark.usefixtures("solver")


def triples(match: Match, row: int, image: int) -> set[tuple[int, int]]:
    here = (match.row == row) & (match.image == image)
    return set(zip(match.query[here].tolist(), match.target[here].tolist(), strict=True))


def test_equals_exhaustive_search(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=2, counts=[3, 0, 1], queries=5)
    match = matcher({"main": preds}, targets)["main"]
    cost = padded_costs(matcher, preds, targets)
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
    matcher.limits = Limits({"main": [3, 1]})
    match = matcher({"main": preds}, targets)["main"]
    mixed = Targets(labels=targets.labels[order], boxes=targets.boxes[order], counts=[targets.counts[i] for i in order])
    swapped = matcher(
        {"main": Predictions(logits=preds.logits[:, order], boxes=preds.boxes[:, order], softmax=True)}, mixed
    )["main"]
    for row in range(2):
        for new, old in enumerate(order):
            assert triples(swapped, row, new) == triples(match, row, old)


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


def test_a_target_without_allowed_queries_takes_none_from_another() -> None:
    """Target 0 at 0.35 is nearer to the query at 0.30 than to that at 0.41, whatever target 1 at 0.30 would cost."""
    boxes = torch.full((1, 1, 2, 4), 0.5)
    boxes[0, 0, :, 0] = torch.tensor([0.30, 0.41])
    truth = torch.full((1, 2, 4), 0.5)
    truth[0, :, 0] = torch.tensor([0.35, 0.30])
    preds = Predictions(logits=torch.zeros(1, 1, 2, 1), boxes=boxes, allowed=torch.tensor([[[True, False]] * 2]))
    targets = Targets(labels=torch.zeros(1, 2, dtype=torch.int64), boxes=truth, counts=[2])
    match = HungarianMatcher(costs=[L1Cost(weight=1.0)])({"main": preds}, targets)["main"]
    assert (match.query.tolist(), match.target.tolist()) == ([0], [0])


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


def test_costs_change_nothing(matcher: HungarianMatcher) -> None:
    """Boxes that are stored coordinate by coordinate, which needs no copy, are not changed either."""
    preds, targets = random_set(rows=2, counts=[2, 1], queries=4)
    preds.boxes = preds.boxes.detach().movedim(-1, 0).contiguous().movedim(0, -1)
    before = [x.clone() for x in (preds.logits, preds.boxes, targets.labels, targets.boxes)]
    matcher({"main": preds}, targets)
    for x, y in zip((preds.logits, preds.boxes, targets.labels, targets.boxes), before, strict=True):
        assert torch.equal(x, y)


def test_tensors_keep_their_shapes_in_one_copy() -> None:
    tensors = [torch.rand(2, 0, 3), torch.rand(4, 1), torch.rand(2, 3)]
    for a, b in zip(in_one_copy(tensors), tensors, strict=True):
        assert torch.equal(torch.from_numpy(a), b)


def break_one(preds: Predictions, what: str, value: float) -> None:
    with torch.no_grad():
        getattr(preds, what)[1, 2, 3, 1] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["logits", "boxes"])
@pytest.mark.parametrize("known", [False, True])
def test_every_nonfinite_prediction_is_found(matcher: HungarianMatcher, what: str, value: float, known: bool) -> None:
    """It is found in an image without targets, in a class that no target has, and in a set of known matches."""
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


class Given(Cost):
    """Cost of given numbers, (Q, T), for one row and one image."""

    def __init__(self, numbers: list[list[float]]) -> None:
        super().__init__(weight=1.0)
        self.numbers = torch.tensor(numbers).T[None, None]

    def forward(self, preds: Predictions, targets: Targets) -> torch.Tensor:
        return self.numbers


@pytest.mark.parametrize("base", [0.0, -50.0, 2.0**26])
def test_as_few_forbidden_pairs_as_can_be(base: float) -> None:
    """Target 3 may have query 0 only, and the chain behind it costs 48, three times any pair: all four are matched."""
    preds, targets = random_set(rows=1, counts=[4], queries=4)
    preds.allowed = torch.tensor([[[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]]).bool()
    costs = torch.tensor([[0.0, 16, 0, 0], [0, 0, 16, 0], [0, 0, 0, 16], [0, 0, 0, 0]]) + base
    match = HungarianMatcher(costs=[Given(costs.tolist())])({"main": preds}, targets)["main"]
    assert triples(match, 0, 0) == {(0, 3), (1, 0), (2, 1), (3, 2)}


@pytest.mark.parametrize("value", [0.0, 3e7, -3e7])
def test_equal_costs_of_any_size(value: float) -> None:
    """A forbidden pair costs more even if adding 1 to the costs changes nothing in float32."""
    preds, targets = random_set(rows=1, counts=[2], queries=5)
    preds.valid = torch.tensor([[False, False, True, False, True]])
    match = HungarianMatcher(costs=[Given([[value] * 5] * 2)])({"main": preds}, targets)["main"]
    assert {q for q, _ in triples(match, 0, 0)} == {2, 4}


def test_an_outlier_does_not_unsettle_other_images() -> None:
    """The price of a forbidden pair depends on the costs of its row and image only."""
    torch.manual_seed(0)
    preds, targets = random_set(rows=2, counts=[1, 3], queries=5)
    preds.valid = torch.tensor([[True] * 5, [False, True, False, False, True]])
    expected = HungarianMatcher(costs=[L1Cost(weight=1.0)])({"main": preds}, targets)["main"]
    with torch.no_grad():
        preds.boxes[0, 0, 2] = 1e20
        preds.boxes[1, 0] *= 1e18
    match = HungarianMatcher(costs=[L1Cost(weight=1.0)])({"main": preds}, targets)["main"]
    for row in range(2):
        assert triples(match, row, 1) == triples(expected, row, 1) and len(triples(match, row, 1)) == 2


def test_more_targets_than_queries_that_may_be_matched() -> None:
    """The price of forbidden pairs does not round these costs away: 0.4375 is the least sum."""
    preds, targets = random_set(rows=1, counts=[3], queries=4)
    preds.valid = torch.tensor([[True, False, True, False]])
    costs = [Given([[0.5, 0.0, 0.75, 0.0], [0.25, 0.0, 0.5, 0.0], [0.125, 0.0, 0.1875, 0.0]])]
    match = HungarianMatcher(costs=costs)({"main": preds}, targets)["main"]
    assert triples(match, 0, 0) == {(0, 1), (2, 2)}


@pytest.mark.parametrize("weight", [1e-9, 1.0, 1e9])
def test_forbidden_pairs_cost_more_than_any_other(weight: float) -> None:
    """At any scale of a user's costs, three targets take the three queries that are no padding."""
    torch.manual_seed(0)
    preds, targets = random_set(rows=2, counts=[3, 1], queries=6)
    preds.valid = torch.tensor([[False, True, False, True, True, False], [True] * 6])
    matcher = HungarianMatcher(costs=[L1Cost(weight=weight)])
    match = matcher({"main": preds}, targets)["main"]
    cost = padded_costs(matcher, preds, targets).double()
    for row in range(2):
        sums = [sum(cost[row, 0, q, t].item() for t, q in enumerate(some)) for some in permutations([1, 3, 4])]
        found = triples(match, row, 0)
        assert sorted(q for q, _ in found) == [1, 3, 4] and sorted(t for _, t in found) == [0, 1, 2]
        assert sum(cost[row, 0, q, t].item() for q, t in found) == pytest.approx(min(sums), rel=1e-6)  # L1 often ties
        assert triples(match, row, 1) == {(cost[row, 1, :, 0].argmin().item(), 0)}


def test_a_broken_image_does_not_unsettle_the_others(matcher: HungarianMatcher) -> None:
    """With padding queries, the price of a forbidden pair depends on finite images only."""
    matcher.on_nonfinite = "skip"
    preds, targets = random_set(rows=1, counts=[2, 2], queries=5)
    preds.valid = torch.tensor([[True, False, True, False, True]] * 2)
    expected = matcher({"main": preds}, targets)["main"]
    with torch.no_grad():
        preds.logits[0, 1, 2] = float("nan")
    match = matcher({"main": preds}, targets)["main"]
    assert triples(match, 0, 0) == triples(expected, 0, 0) and not triples(match, 0, 1)


def test_nothing_is_allowed() -> None:
    preds, targets = random_set(rows=2, counts=[2, 1], queries=3)
    preds.allowed = torch.zeros(2, 3, 2, dtype=torch.bool)
    preds.allowed[1] = True
    match = HungarianMatcher(costs=[L1Cost(weight=1.0)])({"main": preds}, targets)["main"]
    assert match.image.tolist() == [1, 1] and match.row.tolist() == [0, 1]


def test_large_predictions_are_finite(matcher: HungarianMatcher) -> None:
    """Predictions are finite even if the sum of their logits is not."""
    preds, targets = random_set(rows=2, counts=[1, 2], queries=4)
    with torch.no_grad():
        preds.logits[..., :2] = 3e38
    assert len(matcher({"main": preds}, targets)["main"]) == 6


@pytest.mark.parametrize("copies", [1, 3])
def test_objects_but_no_queries(matcher: HungarianMatcher, copies: int) -> None:
    matcher.limits = Limits({"main": copies})
    preds, targets = random_set(rows=2, counts=[1, 0, 2], queries=0)
    assert len(matcher({"main": preds}, targets)["main"]) == 0
