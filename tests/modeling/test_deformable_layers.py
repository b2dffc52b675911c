"""The deformable layers by their formulas, and the initial weights of the deformable detectors' parts."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.layers.positional import SinePositionEncoding, encode_coordinates
from align_detr.modeling.deformable import (
    DeformableDecoderLayer,
    DeformableEncoder,
    DeformableEncoderLayer,
    in_each_level,
    token_centres,
)
from align_detr.modeling.neck import MultiScaleNeck
from align_detr.modeling.proposals import ClassProposals
from align_detr.modeling.queries import EncodedProposalQueries, PointQueries
from align_detr.modeling.query_position import ReferencePosition, ScaledReferencePosition
from align_detr.structures import Memory, QueryPlace

DIM = 8
SIZES = dict(embed_dim=DIM, num_heads=2, ffn_dim=12, num_levels=2, num_points=2)


def some_memory() -> Memory:
    """Return levels of 3 x 4 and 2 x 2 tokens, of which the second image covers a part."""
    generator = torch.Generator().manual_seed(0)
    tokens, position = torch.randn(2, 2, 16, DIM, generator=generator)
    padding = torch.zeros(2, 16, dtype=torch.bool)
    padding[1, [2, 3, 6, 7, 8, 9, 10, 11, 13, 14, 15]] = True
    return Memory(tokens, position, padding, [(3, 4), (2, 2)], [[(3, 4), (2, 2)], [(2, 2), (1, 1)]])


def with_random_parameters(layer: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def test_encoder_layer() -> None:
    memory = some_memory()
    layer = with_random_parameters(DeformableEncoderLayer(**SIZES, dropout=0.0))
    x, reference = memory.tokens + 1, in_each_level(token_centres(memory), memory)
    attended = layer.self_attn(x + memory.position, reference, x, memory.shapes, memory.padding)
    expected = layer.self_attn_norm(x + attended)
    expected = layer.ffn_norm(expected + layer.ffn(expected))
    assert_close(layer(x, memory, reference), expected)
    assert torch.equal(layer(x, memory), layer(x, memory, reference)), "as in an encoder that passes no references"


def test_encoder_layer_drops_both_blocks_in_training() -> None:
    memory = some_memory()
    layer = with_random_parameters(DeformableEncoderLayer(**SIZES, dropout=1.0)).train()
    expected = layer.ffn_norm(layer.self_attn_norm(memory.tokens))
    assert_close(layer(memory.tokens, memory, in_each_level(token_centres(memory), memory)), expected)


def test_encoder_ends_with_its_norm() -> None:
    memory, norm = some_memory(), with_random_parameters(nn.LayerNorm(DIM))
    layer = DeformableEncoderLayer(**SIZES, dropout=0.0)
    normed = DeformableEncoder(layer=layer, num_layers=2, norm=norm)
    plain = DeformableEncoder(layer=layer, num_layers=2)
    plain.layers.load_state_dict(normed.layers.state_dict())
    assert_close(normed(memory).tokens, normed.norm(plain(memory).tokens))


@pytest.mark.parametrize("sides", [2, 4])
def test_decoder_layer(sides: int) -> None:
    """Positions enter the queries of both attentions and the keys of self-attention, but no values."""
    memory, generator = some_memory(), torch.Generator().manual_seed(2)
    layer = with_random_parameters(DeformableDecoderLayer(**SIZES, dropout=0.0)).eval()
    x, position = torch.randn(2, 2, 3, DIM, generator=generator)
    reference = torch.rand(2, 3, sides, generator=generator)
    seen = layer.self_attn_norm(x + layer.self_attn(x + position, x + position, x))
    per_level = in_each_level(reference, memory)
    attended = layer.cross_attn(seen + position, per_level, memory.tokens, memory.shapes, memory.padding)
    expected = layer.cross_attn_norm(seen + attended)
    expected = layer.ffn_norm(expected + layer.ffn(expected))
    assert_close(layer(x, QueryPlace(position=position, reference=reference), memory), expected)


@pytest.mark.parametrize("kind", [ReferencePosition, ScaledReferencePosition])
def test_positions_of_references(kind: type[nn.Module]) -> None:
    """The second image covers 2 of 4 columns and 2 of 3 rows of the finest level; y comes before x."""
    memory, position = some_memory(), with_random_parameters(kind(embed_dim=DIM))
    position.position = nn.Identity()
    reference = torch.tensor([0.2, 0.9, 0.4, 0.6]).expand(2, 1, -1)
    x = torch.randn(2, 1, DIM, generator=torch.Generator().manual_seed(3))
    ratios = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2 / 3, 1 / 2, 1 / 2, 2 / 3]])  # of y, x, width, height
    expected = encode_coordinates(torch.tensor([0.9, 0.2, 0.4, 0.6]) * ratios[:, None], DIM // 2)
    first, sine = position(x, None, reference, memory, 0)
    assert_close(first, expected)
    assert sine is None
    if kind is ScaledReferencePosition:
        position.query_scale = nn.Linear(DIM, 2 * DIM)
        expected = expected * position.query_scale(x)
    assert_close(position(x, None, reference, memory, 1)[0], expected)


def check_xavier(matrix: Tensor) -> None:
    """Check that entries are at most sqrt(6 / (in + out)) and, of 256 or more, come near it."""
    window = matrix[0, 0].numel() if matrix.dim() > 2 else 1
    bound = (6 / (window * (matrix.shape[0] + matrix.shape[1]))) ** 0.5
    assert 0.9 * bound < matrix.abs().max() <= bound


def test_start_of_the_neck() -> None:
    torch.manual_seed(0)
    position = SinePositionEncoding(num_features=16)
    neck = MultiScaleNeck(in_channels=dict(res5=48), embed_dim=32, position=position, num_levels=3)
    for level in neck.levels:
        check_xavier(level.conv.weight)
        assert not level.conv.bias.any()
    assert 0.8 < neck.level_embed.std() < 1.2, "a normal distribution"


def test_start_of_queries_and_proposals() -> None:
    torch.manual_seed(0)
    points = PointQueries(num_queries=200, embed_dim=256)
    check_xavier(points.reference_points.weight)
    assert not points.reference_points.bias.any()
    for part in (EncodedProposalQueries(embed_dim=32), ClassProposals(embed_dim=32)):
        check_xavier(part.projection.weight)
        assert not part.projection.bias.any()
