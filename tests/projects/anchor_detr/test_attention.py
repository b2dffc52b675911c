"""Row-column decoupled attention, the encodings and the norm against slow formulas, with padding."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.projects.anchor_detr import AnchorPointQueries, RowColumnDecoderLayer
from align_detr.projects.anchor_detr.attention import RowColumnAttention
from align_detr.projects.anchor_detr.neck import group_norm
from align_detr.projects.anchor_detr.position import PointEncoding, RowColumnEncoding, axis_centres
from align_detr.structures import Memory, QueryPlace

SHAPE, SIZES, DIM, HEADS = (3, 4), [(3, 4), (2, 3)], 8, 2


def padding() -> Tensor:
    """Return a mask (2, 12) in which the second image covers two rows and three columns."""
    outside = torch.ones(2, *SHAPE, dtype=torch.bool)
    for b, (h, w) in enumerate(SIZES):
        outside[b, :h, :w] = False
    return outside.flatten(1)


def attend_by_hand(module: RowColumnAttention, inputs: list[Tensor], image: int, size: tuple[int, int]) -> Tensor:
    """Attend within one image, cut to its own size, query by query and cell by cell."""
    weights, biases = module.in_proj_weight.chunk(5), module.in_proj_bias.chunk(5)
    row_q, column_q, row_k, column_k, v = (x[image] @ w.T + b for x, w, b in zip(inputs, weights, biases, strict=True))
    h, w = size
    row_k, column_k, v = (x.reshape(*SHAPE, DIM)[:h, :w] for x in (row_k, column_k, v))
    results = []
    for q in range(len(row_q)):
        heads = []
        for part in torch.arange(DIM).chunk(HEADS):
            scale = math.sqrt(len(part))
            a_x = torch.stack([row_q[q, part] @ row_k[:, x, part].mean(0) / scale for x in range(w)]).softmax(0)
            a_y = torch.stack([column_q[q, part] @ column_k[y, :, part].mean(0) / scale for y in range(h)]).softmax(0)
            heads.append(sum(a_y[y] * a_x[x] * v[y, x, part] for y in range(h) for x in range(w)))
        results.append(torch.cat(heads))
    return module.out_proj(torch.stack(results))


def random_attention(**options: bool) -> tuple[RowColumnAttention, list[Tensor]]:
    torch.manual_seed(0)
    module = RowColumnAttention(embed_dim=DIM, num_heads=HEADS, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    lengths = (5, 5, 12, 12, 12)
    return module, [torch.randn(2, n, DIM, requires_grad=True) for n in lengths]


def test_attention_with_padding_and_its_gradients() -> None:
    module, inputs = random_attention()
    ours = module(*inputs, shape=SHAPE, padding=padding())
    slow = torch.stack([attend_by_hand(module, inputs, b, size) for b, size in enumerate(SIZES)])
    assert_close(ours, slow, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(ours), [*inputs, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(slow, leaves, cotangent), strict=True
    ):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_averaging_over_padding_is_the_ports_way() -> None:
    """Without padding both results are equal; with padding, its contents change the port's result only."""
    inside = ~padding()[..., None]
    for average_padding in (False, True):
        module, inputs = random_attention(average_padding=average_padding)
        assert_close(
            module(*inputs, shape=SHAPE),
            torch.stack([attend_by_hand(module, inputs, b, SHAPE) for b in range(2)]),
            atol=1e-5,
            rtol=1e-5,
        )
        changed = [*inputs[:2], *(torch.where(inside, x, -x) for x in inputs[2:])]
        a, b = (module(*x, shape=SHAPE, padding=padding()) for x in (inputs, changed))
        assert torch.equal(a[0], b[0])
        assert torch.allclose(a[1], b[1], atol=1e-6) is not average_padding


def test_centres_of_rows_and_columns() -> None:
    rows, columns = axis_centres(padding().unflatten(1, SHAPE))
    assert_close(rows, torch.tensor([[1 / 6, 3 / 6, 5 / 6], [1 / 4, 3 / 4, 3 / 4]]))
    assert_close(columns, torch.tensor([[1 / 8, 3 / 8, 5 / 8, 7 / 8], [1 / 6, 3 / 6, 5 / 6, 5 / 6]]))


def test_tokens_and_queries_share_their_encodings() -> None:
    torch.manual_seed(0)
    mask = padding().unflatten(1, SHAPE)
    rows, columns = axis_centres(mask)
    y, x = 1, 2  # of the second image
    point = torch.stack([columns[1, x], rows[1, y]])
    plain, decoupled = PointEncoding(embed_dim=DIM), RowColumnEncoding(embed_dim=DIM)
    assert_close(plain(mask)[1, :, y, x], plain.encode_queries(point))
    of_x, of_y = decoupled(mask)[1, :, y, x].chunk(2)
    assert_close(torch.cat([decoupled.encode_points(point), of_x, of_y]), decoupled.encode_queries(point))
    # y comes first, sines and cosines in turn, the first at 2 pi times the coordinate
    sines = plain.point(torch.tensor(_sines(3 / 4, 4) + _sines(5 / 6, 4)))
    assert_close(plain.encode_queries(point), sines, atol=1e-5, rtol=1e-5)
    assert_close(of_x, decoupled.axis(torch.tensor(_sines(5 / 6, 8))), atol=1e-5, rtol=1e-5)


def _sines(coordinate: float, num_features: int) -> list[float]:
    phases = [2 * math.pi * coordinate / 10000 ** (2 * i / num_features) for i in range(num_features // 2)]
    return [value for phase in phases for value in (math.sin(phase), math.cos(phase))]


def test_group_norm_looks_at_the_image_alone() -> None:
    torch.manual_seed(0)
    norm, tokens = nn.GroupNorm(2, DIM), torch.randn(2, 12, DIM)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    ours = group_norm(tokens, norm, padding())
    for b, (h, w) in enumerate(SIZES):
        own = tokens[b].T.reshape(1, DIM, *SHAPE)[:, :, :h, :w]
        assert_close(ours[b].T.reshape(1, DIM, *SHAPE)[:, :, :h, :w], norm(own), atol=1e-5, rtol=1e-5)
    assert_close(group_norm(tokens, norm, None), norm(tokens.transpose(1, 2)).transpose(1, 2))


def test_start() -> None:
    """Each third of each axis has a third of the 3000 points; the standard deviation of this number is 26."""
    torch.manual_seed(0)
    points = AnchorPointQueries(num_queries=3000, embed_dim=DIM).point.weight
    for third in range(3):
        share = ((points >= third / 3) & (points < (third + 1) / 3)).sum(0)
        assert ((share > 870) & (share < 1130)).all()
    assert not RowColumnAttention(embed_dim=DIM, num_heads=HEADS).out_proj.bias.any()


def test_a_decoder_layer_needs_encoded_coordinates() -> None:
    layer = RowColumnDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8)
    tokens, position = torch.zeros(2, 12, DIM), torch.zeros(2, 12, 2 * DIM)
    memory = Memory(tokens=tokens, position=position, padding=None, shapes=[SHAPE], valid_sizes=[[SHAPE] * 2])
    with pytest.raises(ConfigError, match=r"set model\.decoder\.query_position to a RowColumnPosition\.$"):
        layer(tokens, QueryPlace(position=tokens), memory)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match=r"embed_dim 10 is not a multiple of num_heads 4: change one of them\.$"):
        RowColumnAttention(embed_dim=10, num_heads=4)
