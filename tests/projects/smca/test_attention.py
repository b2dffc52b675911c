"""The Gaussian prior and the attention that adds it, against slow formulas, with padding and gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling import SingleScaleNeck
from align_detr.projects.smca import ExtentNeck, ModulatedDecoderLayer
from align_detr.projects.smca.attention import ModulatedAttention, log_gaussian
from align_detr.projects.smca.neck import ExtentMemory
from align_detr.structures import Memory, QueryPlace

DIM, HEADS, SHAPE = 8, 2, (2, 3)


def test_log_gaussian() -> None:
    centre, factor = torch.tensor([0.5, 1.0]), torch.tensor([4.0, 2.0])
    # x: (0 - 0.5)^2 4 = 1, (1 - 0.5)^2 4 = 1, (2 - 0.5)^2 4 = 9; y: (0 - 1)^2 2 = 2, 0; over 8
    expected = torch.tensor([1 + 2, 1 + 2, 9 + 2, 1, 1, 9]) / -8
    assert_close(log_gaussian(centre, factor, SHAPE, smooth=8.0), expected)


def attend_by_hand(
    attention: ModulatedAttention, query: Tensor, image: Tensor, log_prior: Tensor, padding: Tensor
) -> Tensor:
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, image, image), weights, biases, strict=True))
    heads = []
    for h, part in enumerate(torch.arange(DIM).chunk(HEADS)):
        logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(len(part)) + log_prior[:, h]
        weight = logits.exp() * ~padding[:, None]
        heads.append(weight / weight.sum(-1, keepdim=True) @ v[..., part])
    return attention.out_proj(torch.cat(heads, dim=-1))


def test_modulated_attention_with_padding_and_its_gradients() -> None:
    torch.manual_seed(0)
    attention = ModulatedAttention(embed_dim=DIM, num_heads=HEADS)
    query, image = torch.randn(2, 4, DIM, requires_grad=True), torch.randn(2, 6, DIM, requires_grad=True)
    log_prior = (-3 * torch.rand(2, HEADS, 4, 6)).requires_grad_()
    padding = torch.tensor([[False] * 6, [False, False, True] * 2])
    ours = attention(query, image, image, log_prior=log_prior, padding=padding)
    slow = attend_by_hand(attention, query, image, log_prior, padding)
    assert_close(ours, slow, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(ours), [query, image, log_prior, *attention.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(slow, leaves, cotangent), strict=True
    ):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_centre_far_from_the_image_still_looks_at_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = ModulatedAttention(embed_dim=DIM, num_heads=HEADS).to(dtype)
    query, image = torch.randn(1, 1, DIM, dtype=dtype), torch.randn(1, 6, DIM, dtype=dtype)
    far = log_gaussian(torch.tensor([1000.0, 0.0]), torch.ones(2), SHAPE, smooth=8.0).expand(1, HEADS, 1, -1)
    assert far.max() < -1e5  # not a number of half precision
    padding = torch.tensor([[False, True, True] * 2])
    out = attention(query, image, image, log_prior=far, padding=padding)
    only = log_gaussian(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0]), SHAPE, smooth=8.0)  # x says nothing there
    expected = attention(query, image, image, log_prior=only.expand(1, HEADS, 1, -1), padding=padding)
    assert torch.isfinite(out).all()
    assert_close(out, expected, atol=0.02, rtol=0)  # float32 knows numbers near 1e5 to 0.01


def test_heads_look_where_their_offsets_say() -> None:
    """The prior is centred at the query's centre in cells plus the head's offset, with squared numbers as factors."""
    torch.manual_seed(0)
    layer = ModulatedDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, dropout=0.0, smooth=4.0)
    with torch.no_grad():
        layer.offset.bias.copy_(torch.tensor([1.0, 0.0, -1.0, 0.5]))  # x, y of the first head, then of the second
        layer.sharpness.bias.copy_(torch.tensor([2.0, 1.0, -3.0, 0.0]))
    memory = memory_of_sizes([(96, 64), (48, 80)])
    assert_close(memory.extent, torch.tensor([[2.0, 3.0], [2.5, 1.5]]))  # width, height, in cells of 32 pixels
    place = QueryPlace(position=torch.zeros(2, 1, DIM), reference=torch.full((2, 1, 2), 0.5))
    prior = layer.log_prior(torch.randn(2, 1, DIM), place, memory)
    assert prior.shape == (2, HEADS, 1, 9)
    for b, (cx, cy) in enumerate([(1.0, 1.5), (1.25, 0.75)]):
        for head, (dx, dy, sx, sy) in enumerate([(1.0, 0.0, 4.0, 1.0), (-1.0, 0.5, 9.0, 0.0)]):
            expected = [-((cx + dx - x) ** 2 * sx + (cy + dy - y) ** 2 * sy) / 4.0 for y in range(3) for x in range(3)]
            assert_close(prior[b, head, 0], torch.tensor(expected))


def test_a_layer_without_extents_or_centres_is_a_config_error() -> None:
    layer = ModulatedDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8)
    x, memory = torch.zeros(1, 1, DIM), memory_of_sizes([(96, 96)])
    place = QueryPlace(position=x, reference=torch.full((1, 1, 2), 0.5))
    bare = Memory(memory.tokens, memory.position, None, memory.shapes, memory.valid_sizes)
    with pytest.raises(ConfigError, match=r"set model\.neck to an ExtentNeck\.$"):
        layer(x, place, bare)
    with pytest.raises(ConfigError, match=r"use it in a ModulatedDecoder\.$"):
        layer(x, QueryPlace(position=x), memory)


def test_a_neck_may_read_what_a_memory_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the sum of tokens and position, which the memory then keeps."""
    project = SingleScaleNeck.forward

    def read(self: SingleScaleNeck, *inputs: object) -> Memory:
        memory = project(self, *inputs)
        assert memory.tokens_and_position.shape == memory.tokens.shape
        return memory

    monkeypatch.setattr(SingleScaleNeck, "forward", read)
    assert memory_of_sizes([(96, 48)]).extent.tolist() == [[1.5, 3.0]]


def memory_of_sizes(sizes: list[tuple[int, int]]) -> ExtentMemory:
    neck = ExtentNeck(in_feature="res5", in_channels=4, embed_dim=DIM, position=_NoPosition())
    return neck({"res5": torch.randn(len(sizes), 4, 3, 3)}, sizes, (96, 96))


class _NoPosition(torch.nn.Module):
    def forward(self, padding: Tensor) -> Tensor:
        return torch.zeros(len(padding), DIM, *padding.shape[1:])
