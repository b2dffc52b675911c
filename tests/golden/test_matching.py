"""Matching against the recorded costs and assignments."""

import re
from itertools import permutations

import pytest
import torch
from torch.testing import assert_close

from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.structures import Match, Predictions
from support.golden import Fixture, fixtures
from support.inputs import padded_costs

Pairs = list[set[tuple[int, int]]]
pytestmark = pytest.mark.usefixtures("solver")


def pairs_by_image(match: Match, images: int) -> Pairs:
    """(query, target) pairs of each image of a match with one row."""
    found = list(zip(match.image.tolist(), match.query.tolist(), match.target.tolist(), strict=True))
    return [{(q, t) for b, q, t in found if b == image} for image in range(images)]


def own_columns(cost: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    """A reference cost (B, Q, all targets) cut to each image's own columns."""
    return [block[b] for b, block in enumerate(cost.split(counts, dim=-1))]


def recorded(fixture: Fixture, prefix: str) -> Pairs:
    return [set(image) for image in fixture.indices(prefix)]


def check(fixture: Fixture, matcher: HungarianMatcher, preds: Predictions, prefix: str) -> None:
    targets = fixture.targets()
    cost = padded_costs(matcher, preds, targets)[0]
    for b, expected in enumerate(own_columns(fixture.output[f"{prefix}cost"], targets.counts)):
        assert_close(cost[b, :, : targets.counts[b]], expected, atol=1e-5, rtol=0)
    match = matcher({"main": preds}, targets)["main"]
    assert pairs_by_image(match, len(targets.counts)) == recorded(fixture, prefix)


def focal_matcher(**kwargs) -> HungarianMatcher:
    return HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)], **kwargs)


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
    fixture.output["focal/cost"] = fixture.output["cost"]
    check(fixture, focal_matcher(), preds, "focal/")


def reference_caps(counts: list[int], queries: int, copies: int) -> list[int]:
    """Copies in each image by the reference's rule: an image lowers the cap of all that follow it."""
    caps = []
    for n in counts:
        copies = min(copies, queries // (2 * n)) if n else copies
        caps.append(copies if n else 0)
    return caps


@fixtures("match_focal_*")
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_mixed_matching(fixture: Fixture, copies: int) -> None:
    """The recorded pairs where the reference's cap, which later images inherit, is each image's own; elsewhere the best
    assignment with its own cap.
    """
    preds = Predictions(logits=fixture.input["pred_logits"][None], boxes=fixture.input["pred_boxes"][None])
    targets, matcher = fixture.targets(), focal_matcher(copies={"main": copies})
    queries, counts = preds.logits.shape[2], targets.counts
    ours = pairs_by_image(matcher({"main": preds}, targets)["main"], len(counts))
    own_caps = [max(1, min(copies, queries // (2 * n))) if n else 0 for n in counts]
    if own_caps == reference_caps(counts, queries, copies):
        assert ours == recorded(fixture, f"mixed_k{copies}/")
        return
    case = fixture.name.removeprefix("match_focal_")
    assert case not in ("a", "b_empty", "c_allempty", "f_one") and (case, copies) != ("g_six", 1)
    if copies == 1:
        assert ours == recorded(fixture, "focal/")
    cost = padded_costs(matcher, preds, targets)[0]
    for b, (n, k) in enumerate(zip(counts, own_caps, strict=True)):
        assert len({q for q, _ in ours[b]}) == len(ours[b]) == min(n * k, queries)
        if n * k <= queries:
            assert torch.tensor([t for _, t in ours[b]], dtype=torch.int64).bincount(minlength=n).tolist() == [k] * n
        assert best_improvement(cost[b, :, :n], ours[b]) >= -1e-6


def best_improvement(cost: torch.Tensor, pairs: set[tuple[int, int]]) -> float:
    """What the best exchange of queries would add to the cost: an assignment is optimal if none is negative.

    Every better assignment contains a cycle of targets that each hand a query to the next; the cheapest cycle comes
    from all shortest paths (Floyd and Warshall). One more node stands for the free queries and, where there are fewer
    queries than targets, for the right to have none.
    """
    queries, n = cost.shape
    cost, target_of = cost.double(), dict(pairs)
    free = [q for q in range(queries) if q not in target_of]
    step = torch.full((n + 1, n + 1), float("inf"), dtype=torch.float64)
    for q, s in target_of.items():
        for t in range(n):
            if s != t:
                step[s, t] = min(step[s, t], cost[q, t] - cost[q, s])
    for t in range(n):
        own = [cost[q, t] for q, s in target_of.items() if s == t]
        step[t, n] = -max(own) if own and free else (0.0 if not own else float("inf"))
        step[n, t] = cost[free, t].min() if free else (0.0 if own else float("inf"))
    for middle in range(n + 1):
        step = torch.minimum(step, step[:, middle, None] + step[None, middle])
    return step.diagonal().min().item() if n else 0.0


@fixtures("match_focal_*")
def test_mixed_matching_of_few_targets_is_exhaustively_optimal(fixture: Fixture) -> None:
    """Two copies of at most two targets, among ten queries, against every possibility."""
    targets = fixture.targets()
    targets.counts = [min(2, n) for n in targets.counts]
    preds = Predictions(
        logits=fixture.input["pred_logits"][None, :, :10], boxes=fixture.input["pred_boxes"][None, :, :10]
    )
    matcher = focal_matcher(copies={"main": 2})
    ours = pairs_by_image(matcher({"main": preds}, targets)["main"], len(targets.counts))
    cost = padded_costs(matcher, preds, targets)[0]
    for b, n in enumerate(targets.counts):
        best = min(
            permutations(range(10), 2 * n),
            key=lambda queries: sum(cost[b, q, i // 2].item() for i, q in enumerate(queries)),
        )
        assert ours[b] == {(q, i // 2) for i, q in enumerate(best)}


@fixtures("match_group*")
def test_group_matching(fixture: Fixture) -> None:
    groups, size = fixture.meta["group_nums"], fixture.meta["queries_per_group"]
    logits, boxes = (
        fixture.input[f"pred_{x}"].unflatten(1, (groups, size)).transpose(0, 1) for x in ("logits", "boxes")
    )
    targets = fixture.targets()
    match = focal_matcher()({"main": Predictions(logits=logits, boxes=boxes, groups=groups)}, targets)["main"]
    match.query = match.query + size * match.row
    assert pairs_by_image(match, len(targets.counts)) == recorded(fixture, "")
