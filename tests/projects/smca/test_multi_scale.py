"""SMCA on several scales against slow formulas, scale by scale."""

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close

from align_detr.engine.attention_sparsity import cross_attentions
from align_detr.errors import ConfigError
from align_detr.modeling import EncoderLayer
from align_detr.projects.smca import (
    ExtentNeck,
    IntraAndMultiScaleEncoder,
    IntraScaleEncoderLayer,
    ScaleSelectiveAttention,
    ScaleSelectiveDecoderLayer,
    ScalesMemory,
    ScalesNeck,
)
from align_detr.structures import Memory, QueryPlace
from support.shrink import as_json, config, small_model

DIM, HEADS = 8, 2
SHAPES = [(4, 6), (2, 3), (1, 2)]  # cells of 16, 32 and 64 pixels in 64 x 96
LENGTHS = [24, 6, 2]


class Zeros(torch.nn.Module):
    """Positions of zero."""

    def forward(self, padding: Tensor) -> Tensor:
        return torch.zeros(len(padding), DIM, *padding.shape[1:])


def neck() -> ScalesNeck:
    torch.manual_seed(0)
    return ScalesNeck(in_channels=dict(res4=3, res5=5), embed_dim=DIM, position=Zeros())


def memory_of_sizes(sizes: list[tuple[int, int]], padded: tuple[int, int]) -> ScalesMemory:
    maps = {
        name: torch.randn(len(sizes), channels, -(-padded[0] // stride), -(-padded[1] // stride))
        for name, channels, stride in (("res4", 3, 16), ("res5", 5, 32))
    }
    return neck()(maps, sizes, padded)


def test_scales_of_the_neck() -> None:
    """The coarsest has every second row and column of the one before."""
    memory = memory_of_sizes([(64, 96), (40, 80)], (64, 96))
    assert memory.shapes == SHAPES and memory.tokens.shape == memory.position.shape == (2, 32, DIM)
    assert memory.cell_sides == (0.5, 1.0, 2.0)
    assert_close(memory.extent, torch.tensor([[3.0, 2.0], [2.5, 1.25]]))
    coarse, coarsest = memory.tokens[:, 24:30].unflatten(1, (2, 3)), memory.tokens[:, 30:].unflatten(1, (1, 2))
    assert torch.equal(coarsest, coarse[:, [0]][:, :, [0, 2]])
    assert memory.valid_sizes == [[(4, 6), (3, 5)], [(2, 3), (2, 3)], [(1, 2), (1, 2)]]
    assert memory.padding is not None and memory.padding.sum(1).tolist() == [0, 24 - 15]


def test_padding_of_the_coarsest_scale_does_not_depend_on_the_batch() -> None:
    """64 of 160 rows are two cells of 32 pixels, and one of 64, although 64 / 160 of the three rows are more."""
    assert memory_of_sizes([(64, 64)], (64, 64)).valid_sizes[2] == [(1, 1)]
    assert memory_of_sizes([(64, 64), (160, 64)], (160, 64)).valid_sizes[2] == [(1, 1), (3, 1)]


def attend_scale_by_scale(
    attention: ScaleSelectiveAttention, query: Tensor, image: Tensor, prior: Tensor, shares: Tensor, padding: Tensor
) -> Tensor:
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, image, image), weights, biases, strict=True))
    heads = []
    for h, part in enumerate(torch.arange(DIM).chunk(HEADS)):
        total = torch.zeros(*query.shape[:2], len(part))
        for scale, tokens in enumerate(torch.arange(image.shape[1]).split(LENGTHS)):
            logits = (
                q[..., part] @ k[:, tokens][..., part].transpose(1, 2) / len(part) ** 0.5 + prior[:, h][..., tokens]
            )
            weight = logits.exp() * ~padding[:, None, tokens]
            total = total + shares[..., [scale]] * (weight / weight.sum(-1, keepdim=True) @ v[:, tokens][..., part])
        heads.append(total)
    return attention.out_proj(torch.cat(heads, dim=-1))


def test_attention_scale_by_scale_and_its_gradients() -> None:
    torch.manual_seed(0)
    attention = ScaleSelectiveAttention(embed_dim=DIM, num_heads=HEADS)
    query, image = torch.randn(2, 4, DIM, requires_grad=True), torch.randn(2, 32, DIM, requires_grad=True)
    prior = (-3 * torch.rand(2, HEADS, 4, 32)).requires_grad_()
    shares = torch.rand(2, 4, 3).requires_grad_()
    padding = torch.zeros(2, 32, dtype=torch.bool)
    padding[1, [3, 7, 23, 29, 31]] = True
    ours = attention(query, image, image, log_prior=prior, shares=shares, lengths=LENGTHS, padding=padding)
    slow = attend_scale_by_scale(attention, query, image, prior, shares, padding)
    assert_close(ours, slow, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(ours), [query, image, prior, shares, *attention.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(slow, leaves, cotangent), strict=True
    ):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_weights_are_those_of_the_attention() -> None:
    """Of all tokens at once, with the shares in them: times the values they give the output."""
    torch.manual_seed(0)
    attention = ScaleSelectiveAttention(embed_dim=DIM, num_heads=HEADS)
    query, image = torch.randn(1, 4, DIM), torch.randn(1, 32, DIM)
    given = dict(log_prior=-torch.rand(1, HEADS, 4, 32), shares=torch.rand(1, 4, 3).softmax(-1), lengths=LENGTHS)
    weights = attention.weights(slice(1, 3), query, image, image, **given)
    assert_close(weights.sum(-1), torch.ones(1, HEADS, 2))
    values = (image @ attention.in_proj_weight[2 * DIM :].T).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    out = attention.out_proj((weights @ values).transpose(1, 2).flatten(2))
    assert_close(out, attention(query, image, image, **given)[:, 1:3])


def test_one_gaussian_for_all_scales() -> None:
    """In pixels, exponent and centre are those of the layer: a cell of 32 pixels is 32 times as wide as a pixel."""
    torch.manual_seed(0)
    layer = ScaleSelectiveDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, dropout=0.0, smooth=4.0)
    with torch.no_grad():
        layer.offset.bias.copy_(torch.tensor([1.0, 0.0, -1.0, 0.5]))  # x, y of the first head, then of the second
        layer.sharpness.bias.copy_(torch.tensor([2.0, 1.0, -3.0, 0.0]))
    memory = memory_of_sizes([(64, 96)], (64, 96))
    place = QueryPlace(position=torch.zeros(1, 1, DIM), reference=torch.tensor([[[0.25, 0.5]]]))
    prior = layer.log_prior(torch.randn(1, 1, DIM), place, memory)
    assert prior.shape == (1, HEADS, 1, 32)
    pixels = [
        (x * side, y * side)
        for (h, w), side in zip(SHAPES, (16, 32, 64), strict=True)
        for y in range(h)
        for x in range(w)
    ]
    for head, (dx, dy, sx, sy) in enumerate([(1.0, 0.0, 4.0, 1.0), (-1.0, 0.5, 9.0, 0.0)]):
        cx, cy = 0.25 * 96 + 32 * dx, 0.5 * 64 + 32 * dy
        expected = [-(((x - cx) / 32) ** 2 * sx + ((y - cy) / 32) ** 2 * sy) / 4.0 for x, y in pixels]
        assert_close(prior[0, head, 0], torch.tensor(expected))


def test_shares_come_from_the_query() -> None:
    """They are equal at first; then the softmax of the linear layer, by which a scale can be left out."""
    torch.manual_seed(0)
    layer = ScaleSelectiveDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, dropout=0.0)
    x, place = torch.randn(1, 2, DIM), QueryPlace(position=torch.randn(1, 2, DIM), reference=torch.rand(1, 2, 2))
    assert_close(layer.shares(x, place), torch.full((1, 2, 3), 1 / 3))
    with torch.no_grad():
        layer.scale.weight.normal_()
    normed = layer.place_norm(x + place.position)
    logits = torch.stack([(normed * row).sum(-1) for row in layer.scale.weight], dim=-1)
    assert_close(layer.shares(x, place), logits.exp() / logits.exp().sum(-1, keepdim=True))
    with torch.no_grad():
        layer.scale.bias.copy_(torch.tensor([0.0, 0.0, -200.0]))
    memory = memory_of_sizes([(64, 96)], (64, 96))
    changed = memory.with_tokens(torch.cat([memory.tokens[:, :30], memory.tokens[:, 30:] + 1], dim=1))
    assert torch.equal(layer(x, place, memory), layer(x, place, changed))


def test_intra_scale_layers_see_one_scale() -> None:
    """They equal the plain layer, of the same weights, on each scale alone, with padding and without."""
    torch.manual_seed(0)
    intra = IntraScaleEncoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, dropout=0.0)
    plain = EncoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, dropout=0.0)
    plain.load_state_dict(intra.state_dict())
    for sizes in ([(64, 96)], [(64, 96), (40, 80)]):
        memory = memory_of_sizes(sizes, (64, 96))
        expected = []
        for i, tokens in enumerate(torch.arange(32).split(LENGTHS)):
            padding = None if memory.padding is None else memory.padding[:, tokens]
            x, position = memory.tokens[:, tokens], torch.randn(1)
            alone = Memory(x, position, padding, [SHAPES[i]], [memory.valid_sizes[i]])
            memory.position[:, tokens] = position
            expected.append(plain(x, alone))
        assert_close(intra(memory.tokens, memory), torch.cat(expected, dim=1), atol=1e-6, rtol=1e-5)


def test_order_of_the_encoder() -> None:
    """2 layers within scales, 1 across them, 2 within them, each with weights of its own."""
    encoder = instantiate(small_model("SMCA/smca_multi_scale_r50_50ep.py").encoder)
    assert isinstance(encoder, IntraAndMultiScaleEncoder)
    within = [isinstance(layer, IntraScaleEncoderLayer) for layer in encoder.layers]
    assert within == [True, True, False, True, True] and all(isinstance(x, EncoderLayer) for x in encoder.layers)
    weights = [layer.ffn.linear1.weight for layer in encoder.layers]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_parts_that_do_not_fit_are_config_errors() -> None:
    layer = ScaleSelectiveDecoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=8, num_scales=2)
    x = torch.zeros(1, 1, DIM)
    place = QueryPlace(position=x, reference=torch.full((1, 1, 2), 0.5))
    with pytest.raises(ConfigError, match=r"num_scales is 2, but model.neck gives 3 scales: give both the same"):
        layer(x, place, memory_of_sizes([(64, 96)], (64, 96)))
    single = ExtentNeck(in_feature="res5", in_channels=4, embed_dim=DIM, position=Zeros())
    with pytest.raises(ConfigError, match=r"set model\.neck to a ScalesNeck\.$"):
        layer(x, place, single({"res5": torch.randn(1, 4, 3, 3)}, [(96, 96)], (96, 96)))
    with pytest.raises(ConfigError, match="strides is .16., but in_channels names the 2 maps res4, res5"):
        ScalesNeck(in_channels=dict(res4=3, res5=5), embed_dim=DIM, position=Zeros(), strides=[16])
    with pytest.raises(ConfigError, match="names 'res5', but the backbone gives res4: name one of these"):
        neck()({"res4": torch.randn(1, 3, 4, 4)}, [(64, 64)], (64, 64))


def test_recipe() -> None:
    """That of the single-scale model, with the paper's 40 million parameters (91 classes)."""
    cfg, single = config("SMCA/smca_multi_scale_r50_50ep.py").copy(), config("SMCA/smca_r50_50ep.py")
    for key in ("optimizer", "lr_multiplier", "dataloader.train", "model.criterion", "model.queries"):
        assert as_json(OmegaConf.select(cfg, key)) == as_json(OmegaConf.select(single, key)), key
    cfg.model.head.num_classes = 91
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == 40_712_179
    assert [type(x) for x in cross_attentions(model)] == [ScaleSelectiveAttention] * 6
