"""Position relations as a bias of self-attention, against a formula pair by pair and by hand."""

import math
from typing import ClassVar

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.attention import MultiHeadAttention
from align_detr.modeling import DINO, Decoder, LayerwiseHead, PositionRelation, SharedHead, box_relation
from align_detr.modeling.query_mask import DecoderState
from align_detr.structures import Memory, QueryPart, QueryPlace
from support.detectors import build, deformable_node
from support.inputs import image_input
from support.shrink import as_json, config

DIM, HEADS = 8, 2
BESIDE_THEIR_PARENTS = {
    "relation_detr/relation_dino_r50_4scale_12ep.py": "dino/dino_r50_4scale_12ep.py",
    "relation_detr/align_relation_dino_r50_4scale_12ep.py": "align_detr/align_dino_r50_4scale_12ep.py",
    "ablations/digits_relation.py": "ablations/digits_mixed.py",
}


def random_boxes(*shape: int) -> Tensor:
    return torch.rand(*shape, 4) * 0.8 + 0.1


def related_dino() -> DINO:
    node = deformable_node("dino")
    node.decoder.query_masks = [L(PositionRelation)(num_heads=node.decoder.layer.num_heads)]
    return build(node)


def test_relation_by_hand() -> None:
    """Centres one width and a quarter of a height apart, half as wide and as high: ln 2, ln 1.25, ln 2, 0."""
    a, b = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), torch.tensor([[[0.7, 0.4, 0.1, 0.4]]])
    expected = [math.log(2), math.log(1.25), math.log(2), 0]
    assert_close(box_relation(a, b).flatten(), torch.tensor(expected), atol=2e-4, rtol=0)
    assert torch.isfinite(box_relation(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))).all(), "sides of zero"


def slow_bias(relation: PositionRelation, a: list[float], b: list[float]) -> list[float]:
    """Return the bias of one pair, per head, in plain arithmetic."""
    (xa, ya, wa, ha), (xb, yb, wb, hb) = a, b
    wa, ha, wb, hb = wa + 1e-5, ha + 1e-5, wb + 1e-5, hb + 1e-5
    numbers = [math.log(abs(xa - xb) / wa + 1), math.log(abs(ya - yb) / ha + 1), math.log(wa / wb), math.log(ha / hb)]
    encoded = []
    for number in numbers:
        for k in range(8):
            phase = 100 * number / 10000 ** (2 * k / 16)
            encoded += [math.sin(phase), math.cos(phase)]
    rows = zip(relation.projection.weight.tolist(), relation.projection.bias.tolist(), strict=True)
    return [max(0.0, sum(w * e for w, e in zip(row, encoded, strict=True)) + bias) for row, bias in rows]


def test_bias_of_every_pair() -> None:
    """16 sines and cosines of each number, temperature 10,000 and scale 100; each pair by itself."""
    torch.manual_seed(0)
    relation, a, b = PositionRelation(num_heads=HEADS), random_boxes(2, 3), random_boxes(2, 4)
    found = relation.bias(a, b)
    assert found.shape == (2, HEADS, 3, 4) and (found > 0).any() and (found == 0).any()
    expected = [[[slow_bias(relation, q, k) for k in b[i].tolist()] for q in a[i].tolist()] for i in range(2)]
    assert_close(found.permute(0, 2, 3, 1), torch.tensor(expected), atol=2e-4, rtol=1e-4)  # float32 phases up to 300


def test_numbers_are_added_to_the_logits() -> None:
    """Weights are softmax(q k / sqrt(D) + number); minus infinity hides a key, as True does."""
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(embed_dim=DIM, num_heads=HEADS), torch.randn(2, 3, DIM)
    numbers = torch.randn(2, HEADS, 3, 3)
    numbers[:, :, 0, 2] = -torch.inf
    q, k, v = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    heads = []
    for h in range(HEADS):
        of_head = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
        logits = q[..., of_head] @ k[..., of_head].transpose(1, 2) / math.sqrt(DIM // HEADS) + numbers[:, h]
        heads.append(logits.softmax(-1) @ v[..., of_head])
    assert_close(attention(x, x, x, blocked=numbers), attention.out_proj(torch.cat(heads, -1)), atol=1e-6, rtol=1e-5)
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[0, 2] = True
    as_numbers = torch.zeros(2, HEADS, 3, 3).masked_fill(hidden, -torch.inf)
    assert_close(attention(x, x, x, blocked=as_numbers), attention(x, x, x, blocked=hidden), atol=1e-6, rtol=1e-5)


class Recorder(nn.Module):
    """A layer that notes where it is asked and adds one to the contents."""

    places: ClassVar[list[QueryPlace]] = []  # of all copies

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(embed_dim=DIM, num_heads=HEADS)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Note the place."""
        self.places.append(place)
        return x + 1


def test_layers_compare_the_boxes_of_the_two_layers_before() -> None:
    """Attending queries have the earlier box, attended ones the later; the parts stay blind to each other."""
    torch.manual_seed(0)
    Recorder.places.clear()
    relation = PositionRelation(num_heads=HEADS)
    decoder = Decoder(layer=Recorder(), num_layers=3, refine=True, query_masks=[relation])
    head = LayerwiseHead(num_layers=3, num_classes=2, embed_dim=DIM)
    for mlp in head.bbox_embed:
        nn.init.normal_(mlp.layers[-1].weight)
    parts = [
        QueryPart(name, torch.randn(2, n, DIM), torch.randn(2, n, DIM), random_boxes(2, n))
        for name, n in (("dn", 2), ("main", 3))
    ]
    memory = Memory(torch.randn(2, 6, DIM), torch.randn(2, 6, DIM), None, [(2, 3)], [[(2, 3)] * 2])
    decoder(parts, memory, head)
    first, second, third = Recorder.places
    other_part = torch.tensor([[0, 0, 1, 1, 1]] * 2 + [[1, 1, 0, 0, 0]] * 3).bool()
    assert torch.equal(first.blocked, other_part)
    for earlier, later in ((first, second), (second, third)):
        expected = relation.bias(earlier.reference, later.reference).masked_fill(other_part, -torch.inf)
        assert torch.equal(later.blocked, expected)
        assert not torch.equal(earlier.reference, later.reference)
    assert relation.projection.weight.grad is None
    third.blocked[~other_part.expand_as(third.blocked)].sum().backward()
    assert relation.projection.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in head.parameters()), "no gradient to the boxes"


def test_recomputation_gives_the_gradient_of_the_formula() -> None:
    torch.manual_seed(0)
    relation, a, b = PositionRelation(num_heads=HEADS), random_boxes(2, 5), random_boxes(2, 5)
    state = DecoderState([], SharedHead(num_classes=2, embed_dim=DIM), [], [a, b])
    weight = torch.randn(2, HEADS, 5, 5)
    gradients = [
        torch.autograd.grad((weight * bias).sum(), list(relation.parameters()))
        for bias in (relation(None, state), relation.bias(a, b))
    ]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_without_bias_it_is_dino() -> None:
    """W = 0 and b = 0 leave the detections as DINO's, into which the other weights load."""
    model, plain = related_dino().eval(), build(deformable_node("dino")).eval()
    left_over = plain.load_state_dict(model.state_dict(), strict=False)
    assert not left_over.missing_keys
    assert left_over.unexpected_keys == [f"decoder.query_masks.0.projection.{x}" for x in ("weight", "bias")]
    image = [image_input(64, 64, 0)]
    with torch.no_grad():
        expected, different = (m(image)[0]["instances"].scores for m in (plain, model))
        for parameter in model.decoder.query_masks.parameters():
            parameter.zero_()
        found = model(image)[0]["instances"].scores
    assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(different, expected, atol=1e-4)


def test_parameters() -> None:
    """64 weights and a bias per head: 520 beside the 47.7 million of DINO-R50."""
    assert sum(p.numel() for p in PositionRelation(num_heads=8).parameters()) == 520


def test_misfits_are_named() -> None:
    node = deformable_node("dino")
    node.decoder.query_masks = [L(PositionRelation)(num_heads=3)]
    with pytest.raises(ConfigError, match="num_heads of PositionRelation .* is 3"):
        build(node)
    with pytest.raises(
        ConfigError, match="num_features of PositionRelation .* is 15, but sines and cosines come in pairs"
    ):
        PositionRelation(num_features=15)
    node.decoder.query_masks[0].num_heads, node.decoder.refine = 2, False
    with pytest.raises(ConfigError, match="boxes of several layers"):
        build(node)
    state = DecoderState([], SharedHead(num_classes=2, embed_dim=DIM), [], [torch.rand(1, 2, 2)] * 2)
    with pytest.raises(ConfigError, match="PositionRelation, which compares boxes"):
        PositionRelation(num_heads=HEADS)(None, state)


@pytest.mark.parametrize(("name", "parent"), BESIDE_THEIR_PARENTS.items())
def test_configs_add_the_relation_alone(name: str, parent: str) -> None:
    """With the numbers of the paper: 16 features, temperature 10,000, scale 100, a bias per head."""
    cfg, plain = config(name).copy(), config(parent)
    (relation,) = cfg.model.decoder.pop("query_masks")
    assert as_json(cfg.model) == as_json(plain.model) and as_json(cfg.optimizer) == as_json(plain.optimizer)
    assert relation.num_heads == cfg.model.decoder.layer.num_heads
    built = instantiate(relation)
    assert (built.num_features, built.temperature, built.scale) == (16, 10000, 100)
