"""A matcher that changes its costs once in training."""

import copy

import pytest
import torch
from detectron2.config import instantiate

from align_detr.errors import ConfigError
from align_detr.modeling import FocalCost, HighOrderCost, HungarianMatcher, L1Cost, SoftmaxCost, SwitchedMatcher
from align_detr.structures import Match, Predictions, Targets
from support.inputs import random_set
from support.shrink import config

pytestmark = pytest.mark.usefixtures("solver")


def pairs_of(match: Match) -> set[tuple[int, ...]]:
    parts = (match.row, match.image, match.query, match.target)
    return set(zip(*(part.tolist() for part in parts), strict=True))


@pytest.fixture
def matcher() -> SwitchedMatcher:
    return SwitchedMatcher(costs=[L1Cost(weight=1.0)], late_costs=[HighOrderCost(weight=1.0)], switch=0.5)


def test_which_query_by_hand(matcher: SwitchedMatcher) -> None:
    """The nearer box has half the probability: 0.3 * 1^4 = 0.3, that of IoU 0.9 has 0.6 * 0.9^4 = 0.39."""
    logits = torch.tensor([0.3, 0.6]).logit()
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.36]])
    preds = Predictions(logits=logits[None, None, :, None], boxes=boxes[None, None])
    targets = Targets(labels=torch.tensor([[0]]), boxes=boxes[None, :1], counts=[1])
    queries = []
    for progress in (0.0, 0.49, 0.5, 1.0, 0.2):
        matcher.follow(progress)
        queries.append(matcher({"main": preds}, targets)["main"].query.item())
    assert queries == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("late", [False, True])
def test_it_matches_as_the_plain_matcher(late: bool) -> None:
    """Of one's costs, with copies, before the switch and after."""
    torch.manual_seed(0)
    early, last = [FocalCost(weight=2.0), L1Cost(weight=5.0)], [HighOrderCost(weight=1.0)]
    preds, targets = random_set(rows=2, counts=[3, 0, 5], queries=20, softmax=False)
    matcher = SwitchedMatcher(costs=early, late_costs=last, copies={"main": [2, 1]})
    matcher.follow(0.75 if late else 0.7499)
    expected = HungarianMatcher(costs=last if late else early, copies={"main": [2, 1]})({"main": preds}, targets)
    found = copy.deepcopy(matcher)({"main": preds}, targets)  # as an average of weights has it
    assert pairs_of(found["main"]) == pairs_of(expected["main"])


def test_costs_of_later_are_checked_from_the_start(matcher: SwitchedMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3, softmax=True)
    with pytest.raises(ConfigError, match="HighOrderCost reads sigmoid"):
        matcher({"main": preds}, targets)
    with pytest.raises(ConfigError, match="late_costs is empty"):
        SwitchedMatcher(costs=[SoftmaxCost(weight=1.0)], late_costs=[])
    with pytest.raises(ConfigError, match=r"matcher.switch is 1.5, but must lie in \[0, 1\]"):
        SwitchedMatcher(costs=matcher.costs, late_costs=matcher.late_costs, switch=1.5)


def test_configs_keep_the_rest_of_the_matcher() -> None:
    """Rank-DETR's numbers, and the copies of Align-DINO."""
    name = "align_detr/align_dino_r50_4scale{}_12ep.py"
    found, parent = (instantiate(config(name.format(x)).model.criterion.matcher) for x in ("_high_order", ""))
    assert isinstance(found, SwitchedMatcher) and found.copies == parent.copies and found.switch == 0.75
    assert [type(cost) for cost in found.costs] == [type(cost) for cost in parent.costs]
    assert [(type(cost), cost.weight, cost.power) for cost in found.late_costs] == [(HighOrderCost, 1, 4)]
