"""The decoder loop: parts that do not attend to each other, query groups, and references that move."""

import dataclasses
import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import inverse_sigmoid
from align_detr.modeling.conditional import ConditionalDecoderLayer
from align_detr.modeling.decoder import Decoder, blocked_pairs, separate_runs
from align_detr.modeling.decoder_layers import DecoderLayer, PreNormDecoderLayer
from align_detr.modeling.deformable import DeformableDecoderLayer
from align_detr.modeling.head import LayerwiseHead, LayerwiseIoUHead, SharedHead, SoftmaxHead
from align_detr.structures import Match, Memory, QueryPart, QueryPlace
from support.detectors import tiny_detr

DIM = 8


def noise_memory(images: int = 2) -> Memory:
    tokens, position = torch.randn(images, 6, DIM), torch.randn(images, 6, DIM)
    return Memory(
        tokens=tokens, position=position, padding=None, shapes=[(2, 3)], valid_sizes=[[(2, 3), (1, 2)][:images]]
    )


def part(name: str, length: int, **fields: object) -> QueryPart:
    content, position = torch.randn(2, length, DIM), torch.randn(2, length, DIM)
    return QueryPart(name=name, content=content, position=position, **fields)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    layer = DecoderLayer(embed_dim=DIM, num_heads=2, ffn_dim=16, dropout=0.0)
    return Decoder(layer=layer, num_layers=2, norm=nn.LayerNorm(DIM)).eval()


def test_parts_do_not_see_each_other(decoder: Decoder) -> None:
    head, memory = SoftmaxHead(num_classes=3, embed_dim=DIM), noise_memory()
    parts = [part("o2m", 2), part("main", 3)]
    together = decoder(parts, memory, head)
    for x in parts:
        alone = decoder([x], memory, head)[x.name]
        assert_close(together[x.name].logits, alone.logits)
        assert_close(together[x.name].boxes, alone.boxes)


def test_blocked_pairs_by_hand() -> None:
    """Two denoising groups of two see themselves and `main`; `main` sees itself; a hybrid part sees itself."""
    blocked = blocked_pairs([part("dn", 4, groups=2, sees_main=True), part("main", 2), part("o2m", 1)])
    expected = [
        [0, 0, 1, 1, 0, 0, 1],
        [0, 0, 1, 1, 0, 0, 1],
        [1, 1, 0, 0, 0, 0, 1],
        [1, 1, 0, 0, 0, 0, 1],
        [1, 1, 1, 1, 0, 0, 1],
        [1, 1, 1, 1, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 0],
    ]
    assert blocked.int().tolist() == expected
    assert blocked_pairs([part("main", 3)]) is None
    assert blocked_pairs([part("dn", 0, groups=5), part("main", 3)]) is None, "an empty part blocks nothing"


def test_denoising_sees_all_groups_of_main() -> None:
    """Denoising queries attend to all groups, as in Group-DINO; the groups attend to neither each other nor to them."""
    seen = ~blocked_pairs([part("dn", 2, groups=2, sees_main=True), part("main", 4, groups=2)])
    assert seen.int().tolist() == [
        [1, 0, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]


def test_queries_that_are_padding_are_seen_by_themselves_alone() -> None:
    valid = torch.tensor([[True, True, False], [True, True, True]])
    blocked = blocked_pairs([part("main", 3, valid=valid)])
    assert blocked.shape == (2, 1, 3, 3)
    assert blocked[0, 0].int().tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert not blocked[1].any()


def test_groups_become_rows(decoder: Decoder) -> None:
    """Row layer * G + group holds the predictions of that group when it is decoded by itself."""
    head, memory = SoftmaxHead(num_classes=3, embed_dim=DIM), noise_memory()
    grouped = part("main", 6, groups=3)
    rows = decoder([grouped], memory, head)["main"]
    assert rows.logits.shape == (2 * 3, 2, 2, 4) and rows.groups == 3
    for group in range(3):
        members = slice(2 * group, 2 * group + 2)
        alone = QueryPart("main", grouped.content[:, members], grouped.position[:, members])
        alone = decoder([alone], memory, head)["main"]
        assert_close(rows.logits[group::3], alone.logits)
        assert_close(rows.boxes[group::3], alone.boxes)


def test_separate_runs_by_hand() -> None:
    """Runs replace a mask only if equally long blocks that do not attend to each other are its whole content."""
    assert separate_runs([part("main", 3)]) == 1
    assert separate_runs([part("main", 6, groups=3)]) == 3
    assert separate_runs([part("main", 2), part("o2m", 4, groups=2)]) == 3
    assert separate_runs([part("dn", 0, groups=5, sees_main=True), part("main", 6, groups=3)]) == 3
    assert separate_runs([part("main", 2), part("o2m", 3)]) == 1, "unequal"
    assert separate_runs([part("dn", 2, sees_main=True), part("main", 2)]) == 1, "not separate"
    assert separate_runs([part("main", 6, groups=3, valid=torch.ones(2, 6, dtype=torch.bool))]) == 1, "some are padding"


@pytest.mark.parametrize("kind", [DecoderLayer, PreNormDecoderLayer, ConditionalDecoderLayer])
def test_runs_are_a_mask_for_less_work(kind: type) -> None:
    torch.manual_seed(0)
    layer, memory = kind(embed_dim=DIM, num_heads=2, ffn_dim=16, dropout=0.0), noise_memory()
    queries = part("main", 6, groups=3)
    x, cotangent = queries.content.requires_grad_(), torch.randn(2, 6, DIM)
    places = [{"blocked": blocked_pairs([queries])}, {"runs": separate_runs([queries])}]
    results = [layer(x, QueryPlace(position=queries.position, sine=queries.position, **p), memory) for p in places]
    gradients = [torch.autograd.grad(result, [x, *layer.parameters()], cotangent) for result in results]
    assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)
    first = dataclasses.replace(memory, tokens=memory.tokens[:1], position=memory.position[:1])
    position = queries.position[:1]
    alone = layer(x[:1], QueryPlace(position=position, sine=position, runs=3), first)
    assert_close(alone[0], results[1][0], atol=1e-5, rtol=1e-5)


class RecordsPlaces(nn.Module):
    """A layer that returns its input and records each `QueryPlace`."""

    places: ClassVar[list[QueryPlace]] = []

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        self.places.append(place)
        return x


def test_no_mask_for_separate_runs() -> None:
    RecordsPlaces.places.clear()
    decoder, head = Decoder(layer=RecordsPlaces(), num_layers=2), SoftmaxHead(num_classes=3, embed_dim=DIM)
    decoder([part("main", 6, groups=3)], noise_memory(), head)
    decoder([part("main", 4, groups=2), part("o2m", 3)], noise_memory(), head)
    assert [(x.runs, x.blocked is None) for x in RecordsPlaces.places] == [(3, True)] * 2 + [(1, False)] * 2


def test_known_matches_hold_in_every_layer(decoder: Decoder) -> None:
    match = Match(*torch.tensor([[0, 0], [0, 1], [3, 2], [1, 0]]), weight=torch.tensor([1.0, 0.5]))
    parts = [part("dn", 4, groups=2, match=match, scale=2.0), part("main", 3)]
    known = decoder(parts, noise_memory(), SoftmaxHead(num_classes=3, embed_dim=DIM))["dn"]
    assert known.logits.shape[:3] == (2, 2, 4) and known.groups == 1 and known.scale == 2.0
    assert known.match.row.tolist() == [0, 0, 1, 1] and known.match.image.tolist() == [0, 1, 0, 1]
    assert known.match.query.tolist() == [3, 2, 3, 2] and known.match.target.tolist() == [1, 0, 1, 0]
    assert known.match.weight.tolist() == [1.0, 0.5, 1.0, 0.5]


class ShiftLayer(nn.Module):
    """A layer that doubles its input."""

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        return 2 * x


def shift_head(kind: type) -> nn.Module:
    """Build a head whose correction is the content itself, so that a reader can follow the references by hand."""
    head = kind(num_classes=2, embed_dim=4, **({"num_layers": 3} if kind is LayerwiseHead else {}))
    identity = nn.Identity()
    head.bbox_embed = nn.ModuleList([identity] * 3) if kind is LayerwiseHead else identity
    return head


@pytest.mark.parametrize("kind", [SharedHead, LayerwiseHead])
@pytest.mark.parametrize("look_forward_twice", [False, True])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_references_move(kind: type, look_forward_twice: bool, coordinates: int) -> None:
    """With contents c, 2c, 4c after the layers, the logits of the boxes are r + 2c, r + 2c + 4c, r + 2c + 4c + 8c."""
    content = torch.full((1, 1, 4), 0.05, requires_grad=True)
    reference = torch.full((1, 1, coordinates), 0.3)
    decoder = Decoder(layer=ShiftLayer(), num_layers=3, refine=True, look_forward_twice=look_forward_twice)
    queries = [QueryPart("main", content, reference=reference)]
    boxes = decoder(queries, noise_memory(), shift_head(kind))["main"].boxes
    start = inverse_sigmoid(
        torch.tensor([0.3, 0.3, 0.3 if coordinates == 4 else 0.5, 0.3 if coordinates == 4 else 0.5])
    )
    for layer, total in enumerate([0.1, 0.3, 0.7]):
        assert_close(inverse_sigmoid(boxes[layer, 0, 0]), start + total, atol=1e-5, rtol=0)
    # The last box's own correction is 8c. Looking forward twice, it also sends gradient through the 4c before it (and
    # no further: the reference that the second layer moved came without gradient).
    (grad,) = torch.autograd.grad(inverse_sigmoid(boxes[2]).sum(), content)
    assert_close(grad, torch.full((1, 1, 4), 12.0 if look_forward_twice else 8.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [SharedHead, LayerwiseHead])
def test_heads_start_at_the_references(kind: type) -> None:
    """Boxes start at their references; a point has size sigmoid(-2), in `LayerwiseHead` in the first layer only. A
    class has probability 0.01 for a query that is zero.
    """
    layers = {"num_layers": 2} if kind is LayerwiseHead else {}
    head = kind(num_classes=3, embed_dim=DIM, size_logit=-2.0, **layers)
    boxes, points = torch.rand(1, 5, 4) * 0.8 + 0.1, torch.rand(1, 5, 2) * 0.8 + 0.1
    preds = head(torch.randn(2, 1, 5, DIM), [points, boxes])
    assert_close(preds.boxes[0, ..., :2], points)
    assert_close(preds.boxes[0, ..., 2:], torch.full((1, 5, 2), 1 / (1 + math.exp(2))))
    moved = boxes if kind is LayerwiseHead else (inverse_sigmoid(boxes) - torch.tensor([0, 0, 2, 2])).sigmoid()
    assert_close(preds.boxes[1], moved)
    assert_close(head(torch.zeros(2, 1, 5, DIM), [points, boxes]).logits.sigmoid(), torch.full((2, 1, 5, 3), 0.01))


def test_parts_that_do_not_fit() -> None:
    boxes = QueryPart("main", torch.zeros(2, 3, DIM), torch.zeros(2, 3, DIM), torch.full((2, 3, 4), 0.5))
    memory, softmax = noise_memory(), SoftmaxHead(num_classes=3, embed_dim=DIM)
    shared, layerwise = (
        SharedHead(num_classes=3, embed_dim=DIM),
        LayerwiseHead(num_layers=2, num_classes=3, embed_dim=DIM),
    )
    refining, plain = (Decoder(layer=ShiftLayer(), num_layers=2, refine=refine) for refine in (True, False))
    with pytest.raises(ConfigError, match=r"decoder\.refine is True, but SoftmaxHead has no method `refine`"):
        refining([boxes], memory, softmax)
    with pytest.raises(ConfigError, match=r"decoder\.refine is True, but model\.queries provides no references"):
        refining([part("main", 3)], memory, shared)
    for head in (shared, layerwise):
        with pytest.raises(
            ConfigError, match=rf"model\.head is {type(head).__name__}, .* model\.queries provides none"
        ):
            plain([part("main", 3)], memory, head)


def test_parts_that_disagree_on_positions_or_references() -> None:
    decoder, head = Decoder(layer=ShiftLayer(), num_layers=1), SoftmaxHead(num_classes=3, embed_dim=DIM)
    bare = QueryPart("o2m", torch.zeros(2, 3, DIM))
    for queries in ([part("main", 3), bare], [bare, part("main", 3)]):
        with pytest.raises(ConfigError, match=r"Some parts of model\.queries provide positions and others do not"):
            decoder(queries, noise_memory(), head)
    boxes = QueryPart("main", torch.zeros(2, 3, DIM), reference=torch.full((2, 3, 4), 0.5))
    with pytest.raises(ConfigError, match=r"Some parts of model\.queries provide references and others do not"):
        decoder([bare, boxes], noise_memory(), head)


@pytest.mark.parametrize("kind", [DecoderLayer, PreNormDecoderLayer, DeformableDecoderLayer])
def test_layers_need_positions(kind: type) -> None:
    layer, x = kind(embed_dim=DIM, num_heads=2, ffn_dim=16), torch.zeros(2, 3, DIM)
    with pytest.raises(ConfigError, match=r"model\.decoder\.query_position is null"):
        layer(x, QueryPlace(reference=torch.full((2, 3, 4), 0.5)), noise_memory())


def test_deformable_layers_need_references() -> None:
    layer, x = DeformableDecoderLayer(embed_dim=DIM, num_heads=2, num_levels=1), torch.zeros(2, 3, DIM)
    with pytest.raises(ConfigError, match=r"model\.decoder\.layer is DeformableDecoderLayer.*provides none"):
        layer(x, QueryPlace(position=x), noise_memory())


def test_without_refinement_references_stay() -> None:
    content, reference = torch.full((1, 1, 4), 0.05), torch.full((1, 1, 2), 0.3)
    decoder = Decoder(layer=ShiftLayer(), num_layers=3)
    boxes = decoder([QueryPart("main", content, reference=reference)], noise_memory(), shift_head(SharedHead))["main"]
    expected = torch.tensor([0.1, 0.2, 0.4]) + inverse_sigmoid(torch.tensor(0.3))
    assert_close(inverse_sigmoid(boxes.boxes[:, 0, 0, 0]), expected, atol=1e-5, rtol=0)


def test_norm_is_for_the_head_and_not_for_the_refinement() -> None:
    content, reference = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]), torch.full((1, 1, 4), 0.5)
    norm = nn.LayerNorm(4)
    decoder = Decoder(layer=ShiftLayer(), num_layers=2, norm=norm, refine=True)
    boxes = decoder([QueryPart("main", content, reference=reference)], noise_memory(), shift_head(SharedHead))["main"]
    expected = (norm(4 * content) + 2 * content).sigmoid()
    assert_close(boxes.boxes[1], expected)


def test_first_layer_takes_the_first_place() -> None:
    class Negate(nn.Module):
        def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
            return -x

    decoder = Decoder(layer=ShiftLayer(), first_layer=Negate(), num_layers=3)
    hidden, references = decoder.decode([part("main", 1)], noise_memory(), nn.Identity())
    assert_close(hidden[1], 2 * hidden[0])
    assert_close(hidden[2], 4 * hidden[0])
    assert references is None and [type(x) for x in decoder.layers] == [Negate, ShiftLayer, ShiftLayer]


def test_iou_branch_of_each_layer() -> None:
    torch.manual_seed(0)
    head = LayerwiseIoUHead(num_layers=2, num_classes=3, embed_dim=DIM)
    hidden, references = torch.randn(2, 1, 5, DIM), [torch.rand(1, 5, 4)] * 2
    preds = head(hidden, references)
    assert preds.iou.shape == (2, 1, 5)
    for layer, embed in enumerate(head.iou_embed):
        assert_close(preds.iou[layer, 0, 3], (hidden[layer, 0, 3] * embed.weight[0]).sum() + embed.bias[0])


def test_valid_ratios_by_hand() -> None:
    """Image 1 covers 1 of 2 rows and 2 of 3 columns: (width, height) = (2/3, 1/2)."""
    assert_close(noise_memory().valid_ratios, torch.tensor([[[1.0, 1.0]], [[2 / 3, 1 / 2]]]))


def test_a_compiled_detector_gives_the_same() -> None:
    """Encoder, queries, decoder and head are one graph, which also computes the tokens' coordinates."""
    model, sizes = tiny_detr().eval(), [[(2, 3), (1, 2)]]

    def predict(tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory = model.encoder(
            Memory(tokens=tokens, position=position, padding=None, shapes=[(2, 3)], valid_sizes=sizes)
        )
        preds = model.predict(memory)["main"]
        return preds.logits, preds.boxes, memory.valid_ratios

    tokens, position = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    with torch.no_grad():
        expected = predict(tokens, position)
        assert_close(torch.compile(predict, backend="eager", fullgraph=True)(tokens, position), expected)
