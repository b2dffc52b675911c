"""Distinct query selection, against suppression box after box and by hand."""

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling import (
    DINO,
    DistinctProposals,
    DistinctQueries,
    LayerwiseHead,
    PositionRelation,
    SharedHead,
    distinct_boxes,
)
from align_detr.modeling.query_mask import DecoderState
from align_detr.structures import Memory, QueryPart
from support.detectors import build, deformable_node
from support.inputs import image_input
from support.shrink import as_json, config

DIM = 8
BESIDE_THEIR_PARENTS = {
    "ddq_detr/distinct_dino_r50_4scale_12ep.py": "dino/dino_r50_4scale_12ep.py",
    "ddq_detr/align_distinct_dino_r50_4scale_12ep.py": "align_detr/align_dino_r50_4scale_12ep.py",
    "ablations/digits_distinct.py": "ablations/digits_mixed.py",
}


def row_of_boxes(shift: float, count: int) -> Tensor:
    """Return boxes of sides 0.1, each `shift` to the right of the one before: (1, count, 4) cxcywh."""
    return torch.tensor([[0.1 + i * shift, 0.5, 0.1, 0.1] for i in range(count)])[None]


def sequential(boxes: list[list[float]], scores: list[float], threshold: float) -> list[bool]:
    """Return what suppression box after box keeps, in plain arithmetic."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda k: (-scores[k], k)):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return [i in kept for i in range(len(boxes))]


def overlap(a: list[float], b: list[float]) -> float:
    (xa, ya, wa, ha), (xb, yb, wb, hb) = a, b
    width = min(xa + wa / 2, xb + wb / 2) - max(xa - wa / 2, xb - wb / 2)
    height = min(ya + ha / 2, yb + hb / 2) - max(ya - ha / 2, yb - hb / 2)
    inter = max(0.0, width) * max(0.0, height)
    return inter / (wa * ha + wb * hb - inter)


def test_a_removed_box_removes_none_by_hand() -> None:
    """Neighbours in a row overlap by 0.82, the next but one by 0.67: every second box is kept, whatever its place; of
    equal scores the lower index is first.
    """
    boxes, descending = row_of_boxes(0.01, 6), torch.arange(6.0, 0, -1)[None]
    assert distinct_boxes(boxes, descending).tolist() == [[True, False] * 3]
    assert distinct_boxes(boxes, -descending).tolist() == [[False, True] * 3]
    assert distinct_boxes(boxes, torch.zeros(1, 6)).tolist() == [[True, False] * 3]
    of_four = [[True, False, False, False, True, False]]  # three neighbours further, it is 0.54, then 0.43
    assert distinct_boxes(boxes, descending, iou=0.5).tolist() == of_four
    assert distinct_boxes(boxes, descending, iou=0.9).all()
    assert distinct_boxes(boxes[:, :0], descending[:, :0]).shape == (1, 0)


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_all_at_once_is_box_after_box(threshold: float) -> None:
    """For boxes in clusters, with equal scores among them."""
    torch.manual_seed(0)
    clusters = torch.rand(2, 6, 1, 4) * torch.tensor([0.8, 0.8, 0.1, 0.1]) + 0.1
    boxes = (clusters + 0.01 * torch.randn(2, 6, 12, 4)).flatten(1, 2)
    scores = torch.randint(20, (2, 72)) / 20
    found = distinct_boxes(boxes, scores, threshold)
    expected = [sequential(b, s, threshold) for b, s in zip(boxes.tolist(), scores.tolist(), strict=True)]
    assert found.tolist() == expected
    assert 2 * 5 < found.sum() < 2 * 72


def test_an_even_number_of_rounds_never_removes_too_much() -> None:
    """A chain of 30 decisions needs 30 rounds; after fewer, even, the kept boxes are there, and some others."""
    boxes, scores = row_of_boxes(0.01, 30), torch.arange(30.0, 0, -1)[None]
    exact = distinct_boxes(boxes, scores, rounds=30)
    assert exact.tolist() == [[True, False] * 15] and torch.equal(distinct_boxes(boxes, scores, rounds=31), exact)
    for rounds in (2, 10, 20):
        found = distinct_boxes(boxes, scores, rounds=rounds)
        assert (found | ~exact).all() and (found != exact).sum() == (30 - rounds) // 2
        assert torch.equal(found[:, :rounds], exact[:, :rounds])


class Classes(SharedHead):
    """A head whose logits are the contents."""

    def classify(self, x: Tensor, layer: int) -> Tensor:
        """Return the contents."""
        return x


def state_of(parts: list[QueryPart]) -> DecoderState:
    """Return the state before the second layer, of queries that have not moved."""
    hidden, boxes = (torch.cat([getattr(part, x) for part in parts], dim=1) for x in ("content", "reference"))
    return DecoderState(parts, Classes(num_classes=2, embed_dim=DIM), [hidden], [boxes, boxes])


def test_removed_queries_do_not_see_each_other_by_hand() -> None:
    """Of four queries in a row, the second and the fourth are removed, whatever their classes: they are blind to each
    other, not to themselves. Denoising queries are left alone, though their boxes coincide.
    """
    logits = torch.tensor([[[9.0, 0.0], [0.0, 8.0], [7.0, 0.0], [0.0, 6.0]]])
    main = QueryPart("main", logits, reference=row_of_boxes(0.01, 4))
    denoised = QueryPart("dn", torch.ones(1, 2, 2), reference=row_of_boxes(0.0, 2))
    selection = DistinctQueries()
    blocked = selection(None, state_of([denoised, main]))
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[3, 5] = expected[5, 3] = True
    assert blocked.shape == (1, 1, 6, 6) and torch.equal(blocked[0, 0], expected)
    parts = torch.zeros(6, 6, dtype=torch.bool)
    parts[2:, :2] = True
    assert torch.equal(selection(parts, state_of([denoised, main]))[0, 0], parts | expected)
    numbers = torch.randn(1, 2, 6, 6, requires_grad=True)
    found = selection(numbers, state_of([denoised, main]))
    assert torch.equal(found, numbers.masked_fill(expected, -torch.inf)) and found.requires_grad
    first = DecoderState([main], Classes(num_classes=2, embed_dim=DIM), [], [main.reference])
    assert selection(None, first) is None and selection(parts, first) is parts


def test_groups_are_suppressed_by_themselves_and_padding_removes_none() -> None:
    """Two groups of the same two boxes: the second of each is removed. Padding of the highest score is last."""
    boxes, logits = row_of_boxes(0.0, 2).repeat(1, 2, 1), torch.tensor([[[3.0], [2.0], [3.0], [2.0]]])
    grouped = QueryPart("main", logits, reference=boxes, groups=2)
    assert DistinctQueries().removed(state_of([grouped])).tolist() == [[False, True] * 2]
    valid = torch.tensor([[False, True, False, True]])
    padded = QueryPart("main", logits, reference=boxes, groups=2, valid=valid)
    assert DistinctQueries().removed(state_of([padded])).tolist() == [[True, False] * 2]


def test_softmax_ranks_by_the_best_class() -> None:
    """The last column is "no object": with it, the first query would have been the best."""
    head = LayerwiseHead(num_layers=1, num_classes=2, embed_dim=DIM, softmax=True)
    head.class_embed = nn.ModuleList([nn.Identity()])
    logits = torch.tensor([[[0.0, 0.0, 9.0], [1.0, 0.0, 0.0]]])
    part = QueryPart("main", logits, reference=row_of_boxes(0.0, 2))
    state = DecoderState([part], head, [logits], [part.reference] * 2)
    assert DistinctQueries().removed(state).tolist() == [[True, False]]


def proposals(num_queries: int, candidates: int = 3) -> DistinctProposals:
    """Return proposals whose logit is the token's first channel and whose boxes are the anchors."""
    sizes = dict(num_queries=num_queries, num_classes=1, embed_dim=2, anchor_sides=[0.5])
    made = DistinctProposals(candidates=candidates, **sizes)
    made.projection, made.norm = nn.Identity(), nn.Identity()
    made.class_embed = nn.Linear(2, 1)
    nn.init.constant_(made.class_embed.weight, 1.0)
    nn.init.zeros_(made.class_embed.bias)
    return made


def memory_of(scores: list[float]) -> Memory:
    """Return the tokens of one row of a map, whose first channel is the score."""
    tokens = torch.tensor([[[s, 0.0] for s in scores]])
    count = len(scores)
    return Memory(tokens, torch.zeros_like(tokens), None, [(1, count)], [[(1, count)]])


def test_proposals_are_distinct_by_hand() -> None:
    """Anchors of side 0.5 in 20 tokens overlap by 0.82 with their neighbours, by 0.67 with the next: of the best four
    in a row the second and fourth are removed, and come back only where the queries are more than the kept.
    """
    scores = [0.0] * 4 + [9.0, 8.0, 7.0, 6.0] + [0.0] * 12
    memory = memory_of(scores)

    def chosen(num_queries: int, candidates: int = 3) -> list[int]:
        centres = proposals(num_queries, candidates)(memory).reference[0, :, 0]
        return [round(x * 20 - 0.5) for x in centres.tolist()]

    assert chosen(2) == [4, 6]
    assert chosen(2, candidates=1) == [4, 5], "no candidate to choose from"
    assert chosen(4, candidates=1) == [4, 6, 5, 7], "the removed ones follow"
    found = chosen(20)
    assert sorted(found) == list(range(20)) and found[:2] == [4, 6]


def test_tokens_that_may_not_propose_come_last() -> None:
    """Of six tokens of which two may not propose, eight queries have four real ones, distinct ones first."""
    made = proposals(8)
    memory = Memory(torch.randn(2, 6, 2), torch.zeros(2, 6, 2), None, [(1, 6)], [[(1, 6), (1, 4)]])
    found = made(memory)
    assert found.valid.sum(1).tolist() == [6, 4] and found.valid[:, :4].all()
    assert torch.isfinite(found.reference).all() and (found.reference[found.valid][:, 0] < 1).all()


def dino_of_large_anchors(*masks: DictConfig) -> DictConfig:
    """Return the model of a DINO whose proposals overlap, with entries of the decoder's `query_masks`."""
    node = deformable_node("dino")
    node.proposals.anchor_sides = [0.3, 0.4, 0.5, 0.6]
    node.decoder.query_masks = list(masks)
    return node


def distinct_dino(threshold: float = 0.8) -> DINO:
    node = dino_of_large_anchors(L(DistinctQueries)(iou=threshold))
    node.proposals._target_ = DistinctProposals
    node.proposals.iou = threshold
    return build(node)


def test_weights_are_those_of_dino() -> None:
    """There is no parameter; where nothing overlaps by more than 1, the detections are DINO's."""
    plain = build(dino_of_large_anchors()).eval()
    image = [image_input(64, 64, 0)]
    with torch.no_grad():
        expected = plain(image)[0]["instances"]
        for threshold, same in ((1.0, True), (0.3, False)):
            model = distinct_dino(threshold).eval()
            model.load_state_dict(plain.state_dict(), strict=True)
            found = model(image)[0]["instances"]
            assert torch.allclose(found.scores, expected.scores, atol=1e-6) is same


def test_selection_and_relation_go_together() -> None:
    """In either order, with the same losses and a gradient for the relation."""
    image, masks = [image_input(64, 64, 2)], [L(DistinctQueries)(iou=0.3), L(PositionRelation)(num_heads=2)]
    totals = []
    for order in (masks, masks[::-1]):
        model = build(dino_of_large_anchors(*order)).train()
        (relation,) = (x for x in model.decoder.query_masks if isinstance(x, PositionRelation))
        nn.init.ones_(relation.projection.bias)
        torch.manual_seed(0)
        total = sum(model(image).values())
        total.backward()
        totals.append(total.detach())
        assert relation.projection.weight.grad.abs().sum() > 0
    assert_close(*totals)


def test_nothing_is_read_back_from_the_device() -> None:
    """The forward pass runs on the meta device, whose tensors have no values to read."""
    model = distinct_dino().to("meta").eval()
    memory = model.encoder(model.extract_features([torch.zeros(3, 64, 64, device="meta")] * 2))
    assert all(preds.boxes.is_meta for preds in model.predict(memory).values())


@pytest.mark.parametrize(("name", "parent"), BESIDE_THEIR_PARENTS.items())
def test_configs_add_the_selection_alone(name: str, parent: str) -> None:
    """With the paper's threshold, 0.8."""
    cfg, plain = config(name).copy(), config(parent)
    (selection,), proposals_ = cfg.model.decoder.pop("query_masks"), cfg.model.proposals
    assert selection.iou == proposals_.pop("iou") == 0.8 and proposals_.pop("candidates") == 3
    assert proposals_._target_ is DistinctProposals
    proposals_._target_ = plain.model.proposals._target_
    assert as_json(cfg.model) == as_json(plain.model)


def test_misfits_are_named() -> None:
    node = deformable_node("dino")
    node.decoder.query_masks = [L(DistinctQueries)(iou=1.5)]
    with pytest.raises(ConfigError, match=r"query_masks: iou is 1.5"):
        build(node)
    node.decoder.query_masks[0].iou, node.decoder.refine = 0.8, False
    with pytest.raises(ConfigError, match="DistinctQueries, which compares the boxes of several layers"):
        build(node)
