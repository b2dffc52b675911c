"""The parts of Conditional-, DAB- and Group-DETR: attentions, positions, queries, against formulas written out."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling.conditional import (
    ConditionalCrossAttention,
    ConditionalDecoderLayer,
    ConditionalSelfAttention,
    FirstConditionalDecoderLayer,
)
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.encoder import Encoder, EncoderLayer, ScaledPositionEncoder
from align_detr.modeling.queries import AnchorQueries, ConditionalQueries, GroupQueries, PatternAnchorQueries
from align_detr.modeling.query_position import (
    MIN_SIDE,
    AnchorPosition,
    ConditionalPosition,
    ReferencePosition,
    ScaledReferencePosition,
)
from align_detr.structures import Memory, QueryPlace, Targets
from support.single_scale import noise_memory

DIM, HEADS = 16, 2


def no_targets() -> Targets:
    return Targets(torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1, 4), 0.5), counts=[0, 0])


def by_hand(query: Tensor, key: Tensor, value: Tensor, channels: int) -> Tensor:
    """Return softmax(q k / sqrt(channels)) v, for one head and one image."""
    return (query @ key.T / math.sqrt(channels)).softmax(-1) @ value


def test_cross_attention_head_by_head() -> None:
    """Each head adds the products of its contents and of its positions; channels of other heads do not enter."""
    memory = noise_memory(DIM)
    attention = ConditionalCrossAttention(embed_dim=DIM, num_heads=HEADS)
    x, sine = torch.randn(2, 4, DIM), torch.randn(2, 4, DIM)
    out = attention(x, QueryPlace(sine=sine), memory, padding=memory.padding)
    expected, width = torch.zeros(2, 4, DIM), DIM // HEADS
    for image, length in enumerate([6, 2]):
        content = attention.query_content(x[image]), attention.key_content(memory.tokens[image, :length])
        positions = attention.query_sine(sine[image]), attention.key_position(memory.position[image, :length])
        value = attention.value(memory.tokens[image, :length])
        for head in range(HEADS):
            channels = slice(head * width, (head + 1) * width)
            logits = (
                content[0][:, channels] @ content[1][:, channels].T
                + positions[0][:, channels] @ positions[1][:, channels].T
            )
            expected[image, :, channels] = (logits / math.sqrt(2 * width)).softmax(-1) @ value[:, channels]
    assert_close(out, attention.out_proj(expected), atol=1e-5, rtol=1e-5)


def test_self_attention_head_by_head() -> None:
    attention = ConditionalSelfAttention(embed_dim=DIM, num_heads=HEADS)
    x, position = torch.randn(1, 4, DIM), torch.randn(1, 4, DIM)
    blocked = torch.tensor([[False, False, True, True]] * 2 + [[True, True, False, False]] * 2)
    out = attention(x, position, blocked=blocked)
    expected, width = torch.zeros(4, DIM), DIM // HEADS
    for run in (slice(0, 2), slice(2, 4)):
        a, p = x[0, run], position[0, run]
        query = attention.query_content(a) + attention.query_position(p)
        key = attention.key_content(a) + attention.key_position(p)
        for head in range(HEADS):
            channels = slice(head * width, (head + 1) * width)
            expected[run, channels] = by_hand(
                query[:, channels], key[:, channels], attention.value(a)[:, channels], width
            )
    assert_close(out[0], attention.out_proj(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [ConditionalPosition, AnchorPosition, ReferencePosition, ScaledReferencePosition])
def test_encoded_references_need_references(kind: type[nn.Module]) -> None:
    said = rf"model\.decoder\.query_position is {kind.__name__}, which encodes references, but .* provides none"
    with pytest.raises(ConfigError, match=said):
        kind(embed_dim=DIM)(torch.zeros(2, 4, DIM), torch.zeros(2, 4, DIM), None, noise_memory(DIM), 0)


@pytest.mark.parametrize("kind", [ConditionalDecoderLayer, FirstConditionalDecoderLayer])
def test_conditional_attention_needs_encoded_references(kind: type[nn.Module]) -> None:
    layer, x = kind(embed_dim=DIM, num_heads=HEADS, ffn_dim=32), torch.zeros(2, 4, DIM)
    with pytest.raises(ConfigError, match=r"no encoded references, .*: set model\.decoder\.query_position to"):
        layer(x, QueryPlace(position=x), noise_memory(DIM))


def test_heads_share_the_channels_evenly() -> None:
    with pytest.raises(ValueError, match=r"embed_dim is 16, but must be a multiple of num_heads \(3\)"):
        ConditionalSelfAttention(embed_dim=16, num_heads=3)


def test_dropout_acts_in_training_only() -> None:
    memory = noise_memory(DIM)
    x, sine = torch.randn(2, 4, DIM), torch.randn(2, 4, DIM)
    for attention, arguments in [
        (ConditionalSelfAttention, (x, sine)),
        (ConditionalCrossAttention, (x, QueryPlace(sine=sine), memory)),
    ]:
        module = attention(embed_dim=DIM, num_heads=HEADS, dropout=0.5)
        assert not torch.allclose(module(*arguments), module(*arguments))
        assert torch.equal(module.eval()(*arguments), module(*arguments))


def test_mlps_start_with_xaviers_bound() -> None:
    """The bound is sqrt(6 / (fan in + fan out)), as in the rest of the transformer; PyTorch's default is smaller."""
    decoder = Decoder(
        layer=ConditionalDecoderLayer(embed_dim=64, num_heads=2, ffn_dim=32),
        num_layers=1,
        query_position=AnchorPosition(embed_dim=64),
    )
    layer = EncoderLayer(embed_dim=64, num_heads=2, ffn_dim=32)
    encoder = ScaledPositionEncoder(layer=layer, num_layers=1, embed_dim=64)
    position = decoder.query_position
    for attention in (decoder.layers[0].self_attn, decoder.layers[0].cross_attn):
        assert not attention.out_proj.bias.any(), "as torch.nn.MultiheadAttention"
    for mlp in (
        position.query_scale,
        position.position,
        position.size,
        encoder.position_scale,
        ConditionalQueries(num_queries=3, embed_dim=64).reference,
    ):
        for linear in mlp.layers:
            bound = math.sqrt(6 / sum(linear.weight.shape))
            assert 0.9 * bound < linear.weight.abs().max() <= bound


def test_modulation_by_hand() -> None:
    """With an expected size of sigmoid(0) = 1/2 everywhere, an anchor of 1/4 x 1/8 stretches x by 2 and y by 4."""
    module, memory = AnchorPosition(embed_dim=DIM), noise_memory(DIM)
    for parameter in module.size.parameters():
        nn.init.zeros_(parameter)
    x, reference = torch.randn(2, 1, DIM), torch.tensor([0.3, 0.6, 0.25, 0.125]).expand(2, 1, 4)
    plain = ConditionalPosition(embed_dim=DIM)(x, None, reference, memory, 0)[1]
    sine = module(x, None, reference, memory, 0)[1]
    assert_close(sine[..., : DIM // 2], 4 * plain[..., : DIM // 2])  # y comes first
    assert_close(sine[..., DIM // 2 :], 2 * plain[..., DIM // 2 :])
    scaled = module(x, None, reference, memory, 1)[1]
    assert_close(scaled, sine * module.query_scale(x))


def test_an_anchor_without_size_stays_finite() -> None:
    module, memory = AnchorPosition(embed_dim=DIM), noise_memory(DIM)
    x = torch.randn(2, 2, DIM)
    reference = torch.tensor([[0.3, 0.6, 0.0, 0.0], [0.3, 0.6, MIN_SIDE, MIN_SIDE]]).expand(2, 2, 4)
    reference = reference.clone().requires_grad_()
    position, sine = module(x, None, reference, memory, 1)
    (position.sum() + sine.sum()).backward()
    assert all(torch.isfinite(value).all() for value in (position, sine, reference.grad))
    assert sine.abs().max() <= module.query_scale(x).abs().max() / MIN_SIDE


def test_positions_are_scaled_inside_the_encoder_only() -> None:
    memory = noise_memory(DIM)
    layer = EncoderLayer(embed_dim=DIM, num_heads=HEADS, ffn_dim=32, dropout=0.0)
    scaled = ScaledPositionEncoder(layer=layer, num_layers=2, embed_dim=DIM)
    last = scaled.position_scale.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 2.0)
    plain = Encoder(layer=layer, num_layers=2)
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if k.startswith("layers")})
    doubled = Memory(memory.tokens, 2 * memory.position, memory.padding, memory.shapes, memory.valid_sizes)
    assert_close(scaled(memory).tokens, plain(doubled).tokens)
    assert scaled(memory).position is memory.position


def test_references_stay_float32_under_autocast() -> None:
    for source in (ConditionalQueries, GroupQueries, AnchorQueries, PatternAnchorQueries):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (part,) = source(num_queries=3, embed_dim=DIM)(noise_memory(DIM))
        assert part.reference.dtype == torch.float32


def test_pattern_major_order() -> None:
    queries = PatternAnchorQueries(num_queries=3, embed_dim=DIM, num_patterns=2)
    (part,) = queries(noise_memory(DIM))
    assert part.content.shape == (2, 6, DIM) and part.reference.shape == (2, 6, 4)
    for pattern in range(2):
        for anchor in range(3):
            index = pattern * 3 + anchor
            assert_close(part.content[1, index], queries.pattern.weight[pattern])
            assert_close(part.reference[1, index], queries.anchor.weight[anchor].sigmoid())


def test_anchors_start_all_over_the_image() -> None:
    torch.manual_seed(0)
    (part,) = AnchorQueries(num_queries=4000, embed_dim=DIM)(noise_memory(DIM))
    centres = part.reference[0, :, :2]
    assert not part.content.any()
    for quarter in range(4):  # of each axis: 1000 expected, standard deviation 27
        share = ((centres >= quarter / 4) & (centres < (quarter + 1) / 4)).sum(0)
        assert ((share > 860) & (share < 1140)).all()


def test_groups_train_and_the_first_evaluates() -> None:
    queries, memory = GroupQueries(num_queries=4, embed_dim=DIM, groups=3), noise_memory(DIM)
    (train,), (evaluate,) = queries(memory, None, no_targets()), queries(memory)
    assert train.groups == 3 and train.content.shape == (2, 12, DIM)
    assert evaluate.groups == 1 and evaluate.content.shape == (2, 4, DIM)
    for a, b in ((train.position, evaluate.position), (train.reference, evaluate.reference)):
        assert torch.equal(a[:, :4], b)
