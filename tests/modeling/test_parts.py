"""Neck, encoder, queries and decoder, each by itself."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.positional import LearnedPositionEncoding, SinePositionEncoding
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import DecoderLayer
from align_detr.modeling.encoder import Encoder, EncoderLayer, InputPositionEncoder
from align_detr.modeling.neck import SingleScaleNeck, valid_size
from align_detr.modeling.postprocess import TopKPostprocess
from align_detr.modeling.queries import LearnedContentQueries, LearnedQueries
from align_detr.structures import Predictions


@pytest.fixture
def neck() -> SingleScaleNeck:
    torch.manual_seed(0)
    return SingleScaleNeck(in_feature="res5", in_channels=3, embed_dim=8, position=SinePositionEncoding(num_features=4))


@pytest.mark.parametrize(
    ("image", "padded", "cells", "expected"),
    [(130, 160, 10, 9), (160, 160, 10, 10), (128, 160, 10, 8), (1, 160, 10, 1), (33, 64, 2, 2), (32, 64, 2, 1)],
)
def test_valid_size_counts_the_rows_that_look_inside(image: int, padded: int, cells: int, expected: int) -> None:
    rows = sum(i * padded // cells < image for i in range(cells))
    assert valid_size((image, image), (padded, padded), (cells, cells)) == (expected, expected) == (rows, rows)


def test_neck_marks_padding(neck: SingleScaleNeck) -> None:
    memory = neck({"res5": torch.randn(2, 3, 2, 3)}, [(64, 96), (64, 40)], (64, 96))
    assert memory.shapes == [(2, 3)] and memory.valid_sizes == [[(2, 3), (2, 2)]]
    assert memory.padding.tolist() == [[False] * 6, [False, False, True] * 2]
    unpadded = neck({"res5": torch.randn(2, 3, 2, 3)}, [(64, 96), (64, 96)], (64, 96))
    assert unpadded.padding is None


def test_neck_names_a_feature_that_is_not_there(neck: SingleScaleNeck) -> None:
    with pytest.raises(ConfigError, match="model.neck.in_feature is 'res5', but the backbone gives res3, res4"):
        neck({"res3": torch.zeros(1), "res4": torch.zeros(1)}, [(1, 1)], (1, 1))


def test_layers_have_separate_weights() -> None:
    torch.manual_seed(0)
    sizes = dict(embed_dim=8, num_heads=2, ffn_dim=16, dropout=0.0)
    encoder = Encoder(layer=EncoderLayer(**sizes), num_layers=2)
    decoder = Decoder(layer=DecoderLayer(**sizes), num_layers=2, norm=nn.LayerNorm(8))
    for stack in (encoder, decoder):
        first, second = (layer.self_attn.in_proj_weight for layer in stack.layers)
        assert not torch.equal(first, second)


def test_positions_at_the_input(neck: SingleScaleNeck) -> None:
    sizes = dict(embed_dim=8, num_heads=2, ffn_dim=16, dropout=0.0)
    plain = Encoder(layer=EncoderLayer(**sizes), num_layers=1)
    placed = InputPositionEncoder(layer=EncoderLayer(**sizes), num_layers=1, content_scale=2.0)
    placed.load_state_dict(plain.state_dict())
    memory = neck({"res5": torch.randn(1, 3, 2, 3)}, [(64, 96)], (64, 96))
    expected = plain(memory.with_tokens(2 * memory.tokens + memory.position))
    assert_close(placed(memory).tokens, expected.tokens)


def test_queries(neck: SingleScaleNeck) -> None:
    memory = neck({"res5": torch.randn(2, 3, 2, 3)}, [(64, 96)] * 2, (64, 96))
    (part,) = LearnedQueries(num_queries=5, embed_dim=8)(memory)
    assert part.name == "main" and part.content.shape == part.position.shape == (2, 5, 8)
    assert not part.content.any() and torch.equal(part.position[0], part.position[1])
    queries = LearnedContentQueries(num_queries=5, embed_dim=8)
    (part,) = queries(memory)
    assert torch.equal(part.content[1], queries.content.weight) and torch.equal(
        part.position[1], queries.position.weight
    )


def test_a_map_larger_than_the_learned_positions() -> None:
    with pytest.raises(ValueError, match="2 x 6 is larger than the 5 learned positions"):
        LearnedPositionEncoding(num_features=4, size=5)(torch.zeros(1, 2, 6, dtype=torch.bool))


def test_top_k_over_queries_and_classes() -> None:
    logits = torch.tensor([[[[0.0, 2.0], [1.0, -1.0]]]])
    boxes = torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.25, 0.5, 0.5, 1.0]]]])
    (found,) = TopKPostprocess(num_detections=2)(Predictions(logits=logits, boxes=boxes), [(10, 20)])
    assert_close(found.scores, torch.tensor([2.0, 1.0]).sigmoid())
    assert found.pred_classes.tolist() == [1, 0]
    assert_close(found.pred_boxes.tensor, torch.tensor([[8.0, 4.0, 12.0, 6.0], [0.0, 0.0, 10.0, 10.0]]))
    (everything,) = TopKPostprocess(num_detections=9)(Predictions(logits=logits, boxes=boxes), [(10, 20)])
    assert len(everything) == 4
