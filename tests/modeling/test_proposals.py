"""Two-stage proposals: anchors, tokens that may propose, images with few tokens, and what is trained."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import inverse_sigmoid
from align_detr.modeling.neck import padding_mask
from align_detr.modeling.proposals import (
    ClassProposals,
    ObjectProposals,
    TwoStageProposals,
    count_allowed,
    token_anchors,
)
from align_detr.modeling.queries import (
    EncodedMixedSelectionQueries,
    EncodedProposalQueries,
    HybridQueries,
    MixedSelectionQueries,
    ProposalQueries,
)
from align_detr.structures import Memory, Predictions, Proposals, Targets

DIM = 8
BOTH = pytest.mark.parametrize("kind", [ObjectProposals, ClassProposals])


def memory_of(shapes: list[tuple[int, int]], valid: list[list[tuple[int, int]]]) -> Memory:
    """Return random tokens; valid[l][b] as in `Memory`."""
    masks = [padding_mask(v, shape, torch.device("cpu")).flatten(1) for v, shape in zip(valid, shapes, strict=True)]
    padding = torch.cat(masks, dim=1)
    tokens = torch.randn(*padding.shape, DIM)
    return Memory(tokens, torch.zeros_like(tokens), padding=padding, shapes=shapes, valid_sizes=valid)


def small_memory() -> Memory:
    """Image 0 covers all of 2 x 3 and 1 x 2 tokens; image 1 covers 1 x 2 and 1 x 1 of them."""
    torch.manual_seed(0)
    return memory_of([(2, 3), (1, 2)], [[(2, 3), (1, 2)], [(1, 2), (1, 1)]])


def test_anchors_by_hand() -> None:
    anchors, allowed = token_anchors(small_memory())
    # columns (0.5, 1.5, 2.5) / 3, rows (0.5, 1.5) / 2; then columns (0.5, 1.5) / 2 of one row, twice the side
    fine = [[x / 6, y / 4, 0.05, 0.05] for y in (1, 3) for x in (1, 3, 5)]
    coarse = [[x / 4, 0.5, 0.1, 0.1] for x in (1, 3)]
    assert_close(anchors[0], torch.tensor(fine + coarse))
    assert allowed.tolist() == [[True] * 8, [True, True, False, False, False, False, True, False]]


@pytest.mark.parametrize("length", [1, 2, 49, 50, 51, 99, 100, 149, 150, 151, 250])
def test_allowed_tokens_are_counted_without_looking(length: int) -> None:
    """(i + 0.5) / n is 0.01 exactly for n = 50, i = 0 and for n = 150, i = 1: both are out."""
    memory = memory_of([(1, 300), (2, 150)], [[(1, length), (1, 300)], [(2, 7), (1, length // 2 + 1)]])
    assert count_allowed(memory) == token_anchors(memory)[1].sum(1).tolist()


def test_levels_whose_anchor_exceeds_the_image_propose_nothing() -> None:
    """The side of level 5 is 0.05 x 2^5 = 1.6."""
    memory = memory_of([(1, 1)] * 6, [[(1, 1)]] * 6)
    assert token_anchors(memory)[1].tolist() == [[True] * 5 + [False]] and count_allowed(memory) == [5]


def test_sides_of_anchors_can_be_given() -> None:
    """A level whose side is not in (0.01, 0.99) proposes nothing."""
    memory = small_memory()
    anchors, allowed = token_anchors(memory, [0.3, 1.0])
    assert_close(anchors[0, :, 2:], torch.tensor([[0.3, 0.3]] * 6 + [[1.0, 1.0]] * 2))
    assert allowed[0].tolist() == [True] * 6 + [False] * 2 and count_allowed(memory, [0.3, 1.0]) == [6, 2]
    proposals = ClassProposals(num_queries=2, num_classes=3, embed_dim=DIM, anchor_sides=[0.3, 0.3])
    assert_close(proposals(memory).reference[..., 2:], torch.full((2, 2, 2), 0.3))


def test_each_level_needs_its_side() -> None:
    proposals = ObjectProposals(num_queries=2, num_classes=3, embed_dim=DIM, anchor_sides=[0.3])
    with pytest.raises(ConfigError, match=r"model\.proposals\.anchor_sides has 1 numbers, but the neck makes 2 levels"):
        proposals(small_memory())


def test_tokens_that_may_not_propose_are_encoded_zeros() -> None:
    """Their boxes are (1, 1, 1, 1) for any correction, as in the released code."""
    proposals, memory = with_random_box_corrections(ClassProposals(num_classes=3, embed_dim=DIM)), small_memory()
    nn.init.normal_(proposals.projection.bias)
    anchors, allowed = proposals.anchors(memory)
    tokens = proposals.encode(memory.tokens, allowed)
    assert allowed.any() and not allowed.all()
    assert_close(tokens[~allowed], proposals.norm(proposals.projection.bias).expand(int((~allowed).sum()), -1))
    assert_close(tokens[allowed], proposals.norm(proposals.projection(memory.tokens[allowed])))
    assert (proposals.boxes(tokens, anchors)[~allowed] == 1).all()


class Nearness(nn.Module):
    """Scores with their maximum, 0, at encoded zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return -x.abs().sum(-1, keepdim=True).expand(*x.shape[:-1], 3)


@BOTH
def test_proposals_that_are_padding_are_encoded_zeros(kind: type[TwoStageProposals]) -> None:
    """Image 1 has three tokens for four proposals: these pass their gradient, the fourth passes none to the image."""
    proposals, memory = kind(num_queries=4, num_classes=3, embed_dim=DIM), small_memory()
    nn.init.normal_(proposals.projection.bias)
    memory = memory.with_tokens(memory.tokens.requires_grad_())
    found = proposals(memory)
    assert_close(found.content[1, 3], proposals.norm(proposals.projection.bias))
    (gradient,) = torch.autograd.grad(found.predictions.logits[0, 1].square().sum(), memory.tokens)
    assert gradient[1].ne(0).any(1).tolist() == token_anchors(memory)[1][1].tolist()


@BOTH
def test_padding_is_never_selected_before_an_image(kind: type[TwoStageProposals]) -> None:
    proposals, memory = kind(num_queries=4, num_classes=3, embed_dim=DIM), small_memory()
    proposals.class_embed = Nearness()
    found = proposals(memory)
    assert found.valid.tolist() == [[True] * 4, [True] * 3 + [False]]
    anchors, allowed = token_anchors(memory)
    # corrections are zero at first: references are the anchors
    expected = anchors[1][allowed[1]]
    assert_close(found.reference[1, :3].sort(0).values, expected.sort(0).values, atol=1e-5, rtol=0)
    assert found.reference.isfinite().all()


@BOTH
def test_fewer_tokens_than_queries(kind: type[TwoStageProposals]) -> None:
    """The map has 8 tokens, of which image 1 covers 3, for 20 proposals."""
    proposals, memory = kind(num_queries=20, num_classes=3, embed_dim=DIM), small_memory()
    found = proposals(memory)
    assert found.valid.sum(1).tolist() == [8, 3] and found.valid[0, :8].all() and found.valid[1, :3].all()
    assert found.reference.shape == (2, 20, 4) and found.reference.isfinite().all()
    assert found.predictions.logits.isfinite().all() and found.predictions.boxes.isfinite().all()
    (found.predictions.logits.sum() + found.predictions.boxes.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in proposals.parameters())


@BOTH
def test_enough_tokens_need_no_mask(kind: type[TwoStageProposals]) -> None:
    assert kind(num_queries=3, num_classes=3, embed_dim=DIM)(small_memory()).valid is None


def with_random_box_corrections(proposals: TwoStageProposals) -> TwoStageProposals:
    nn.init.normal_(proposals.bbox_embed.layers[-1].weight)
    return proposals


def test_object_proposals_are_ranked_by_the_first_class() -> None:
    memory = small_memory()
    proposals = with_random_box_corrections(ObjectProposals(num_queries=3, num_classes=3, embed_dim=DIM))
    found = proposals(memory)
    preds = found.predictions
    assert preds.class_agnostic and preds.logits.shape == (1, 2, 8, 3) and preds.boxes.shape == (1, 2, 8, 4)
    assert torch.equal(preds.valid, token_anchors(memory)[1])
    order = preds.logits[0, 0, :, 0].argsort(descending=True)[:3]
    assert_close(found.reference[0], preds.boxes[0, 0][order])
    assert not found.reference.requires_grad and not found.content.requires_grad


def test_class_proposals_are_ranked_by_their_best_class() -> None:
    memory = small_memory()
    proposals = with_random_box_corrections(ClassProposals(num_queries=3, num_classes=3, embed_dim=DIM))
    found = proposals(memory)
    preds = found.predictions
    anchors, allowed = proposals.anchors(memory)
    tokens = proposals.encode(memory.tokens, allowed)
    scores = proposals.class_embed(tokens[0]).max(-1).values
    order = scores.argsort(descending=True)[:3]
    assert not preds.class_agnostic and preds.logits.shape == (1, 2, 3, 3)
    assert_close(preds.logits[0, 0].max(-1).values, scores[order])
    assert_close(found.content[0], tokens[0, order])
    assert_close(found.reference[0], (proposals.bbox_embed(tokens[0, order]) + anchors[0, order]).sigmoid())
    assert_close(inverse_sigmoid(found.reference), inverse_sigmoid(preds.boxes[0]))
    assert preds.boxes.requires_grad and not found.reference.requires_grad and not found.content.requires_grad


def some_proposals(num_queries: int = 4) -> Proposals:
    torch.manual_seed(0)
    empty = Predictions(logits=torch.zeros(1, 2, 0, 3), boxes=torch.zeros(1, 2, 0, 4))
    valid = torch.tensor([[True] * num_queries, [True] * 3 + [False] * (num_queries - 3)])
    return Proposals(torch.randn(2, num_queries, DIM), torch.rand(2, num_queries, 4), empty, valid)


@pytest.mark.parametrize(
    ("source", "content", "position"),
    [
        (ProposalQueries(), "tokens", False),
        (MixedSelectionQueries(num_queries=4, embed_dim=DIM), "learned", False),
        (EncodedProposalQueries(embed_dim=DIM), "encoded", True),
        (EncodedMixedSelectionQueries(num_queries=4, embed_dim=DIM), "learned", True),
    ],
    ids=["tokens", "mixed", "encoded", "encoded mixed"],
)
def test_sources(source: nn.Module, content: str, position: bool) -> None:
    proposals = some_proposals()
    (part,) = source(small_memory(), proposals)
    assert part.name == "main" and torch.equal(part.reference, proposals.reference)
    assert torch.equal(part.valid, proposals.valid)
    expected = dict(tokens=lambda: proposals.content, learned=lambda: source.content.weight.expand(2, -1, -1))
    expected["encoded"] = lambda: source.encode(proposals.reference)[..., DIM:]
    assert torch.equal(part.content, expected[content]())
    assert torch.equal(part.position, source.encode(proposals.reference)[..., :DIM]) if position else not part.position


def test_hybrid_branch() -> None:
    """The first 3 of 5 queries remain in evaluation."""
    source = MixedSelectionQueries(num_queries=5, embed_dim=DIM)
    queries, proposals, memory = HybridQueries(source=source, num_one_to_one=3, copies=6), some_proposals(5), None
    (whole,) = source(memory, proposals)
    (alone,) = queries(memory, proposals)
    targets = Targets(labels=torch.zeros(2, 1).long(), boxes=torch.zeros(2, 1, 4), counts=[0, 0])
    main, others = queries(memory, proposals, targets)
    assert [main.name, main.scale, main.copies] == ["main", 1.0, None]
    assert [others.name, others.scale, others.copies] == ["o2m", 6.0, 6]
    for part in (alone, main):
        assert torch.equal(part.content, whole.content[:, :3]) and torch.equal(part.valid, whole.valid[:, :3])
    assert torch.equal(others.reference, whole.reference[:, 3:]) and torch.equal(others.valid, whole.valid[:, 3:])
    assert not others.sees_main
