"""One-to-one matching against the recorded costs and assignments."""

import re

import torch
from golden_files import Fixture, fixtures
from torch.testing import assert_close

from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.structures import Match, Predictions


def pairs_by_image(match: Match, images: int) -> list[set[tuple[int, int]]]:
    """(query, target) pairs of each image of a match with one row."""
    found = list(zip(match.image.tolist(), match.query.tolist(), match.target.tolist(), strict=True))
    return [{(q, t) for b, q, t in found if b == image} for image in range(images)]


def own_columns(cost: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    """A reference cost (B, Q, all targets) cut to each image's own columns."""
    return [block[b] for b, block in enumerate(cost.split(counts, dim=-1))]


def check(fixture: Fixture, matcher: HungarianMatcher, preds: Predictions, prefix: str) -> None:
    targets = fixture.targets()
    cost = matcher.cost(preds, targets)[0]
    for b, expected in enumerate(own_columns(fixture.output[f"{prefix}cost"], targets.counts)):
        assert_close(cost[b, :, : targets.counts[b]], expected, atol=1e-5, rtol=0)
    match = matcher({"main": preds}, targets)["main"]
    recorded = fixture.indices(prefix)
    assert pairs_by_image(match, len(targets.counts)) == [set(image) for image in recorded]


@fixtures("match_detr_*")
def test_softmax_matching(fixture: Fixture) -> None:
    preds = Predictions(
        logits=fixture.input["pred_logits"][None], boxes=fixture.input["pred_boxes"][None], softmax=True
    )
    variants = sorted({key.split("/")[0] for key in fixture.output})
    assert variants
    for variant in variants:
        c, b, g = (float(x) for x in re.fullmatch(r"c([\d.]+)b([\d.]+)g([\d.]+)", variant).groups())
        matcher = HungarianMatcher(costs=[SoftmaxCost(weight=c), L1Cost(weight=b), GIoUCost(weight=g)])
        check(fixture, matcher, preds, f"{variant}/")


@fixtures("match_focal_*")
def test_focal_matching(fixture: Fixture) -> None:
    preds = Predictions(logits=fixture.input["pred_logits"][None], boxes=fixture.input["pred_boxes"][None])
    matcher = HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)])
    fixture.output["focal/cost"] = fixture.output["cost"]
    check(fixture, matcher, preds, "focal/")
