"""Differences between training and evaluation (dropout, padding), and properties that no shape shows: normalisation of
pixels, initialisation, the row that becomes detections.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import DecoderLayer, PreNormDecoderLayer
from align_detr.modeling.encoder import Encoder, EncoderLayer, PreNormEncoderLayer
from align_detr.modeling.postprocess import SoftmaxPostprocess, TopKPostprocess
from align_detr.structures import Memory, Predictions, QueryPlace
from support.detectors import tiny_detr
from support.inputs import image_input

DROP_ALL = dict(embed_dim=8, num_heads=2, ffn_dim=16, dropout=1.0)


def memory_of_noise() -> Memory:
    return Memory(
        tokens=torch.randn(2, 6, 8),
        position=torch.randn(2, 6, 8),
        padding=None,
        shapes=[(2, 3)],
        valid_sizes=[[(2, 3), (2, 3)]],
    )


def with_random_parameters(module: nn.Module) -> nn.Module:
    """Draw all parameters: with zero biases and plain norms, a block could add nothing without being dropped."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.train()


def norm_by_hand(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def test_attention_drops_in_training_only() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(embed_dim=8, num_heads=2, dropout=0.5)
    plain = MultiHeadAttention(embed_dim=8, num_heads=2)
    plain.load_state_dict(attention.state_dict())
    query, image = torch.randn(2, 5, 8), torch.randn(2, 6, 8)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    for inputs, options in [((query, query, query), {}), ((query, image, image), dict(padding=padding))]:
        attention.train()
        assert not torch.allclose(attention(*inputs, **options), attention(*inputs, **options))
        attention.eval()
        assert torch.equal(attention(*inputs, **options), attention(*inputs, **options))
        assert_close(attention(*inputs, **options), plain(*inputs, **options))


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
def test_layers_drop_in_training_only(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = kind(embed_dim=8, num_heads=2, ffn_dim=16, dropout=0.5)
    plain = kind(embed_dim=8, num_heads=2, ffn_dim=16, dropout=0.0)
    plain.load_state_dict(layer.state_dict())
    memory = memory_of_noise()
    x, place = torch.randn(2, 5, 8), QueryPlace(position=torch.randn(2, 5, 8))
    inputs = (memory.tokens, memory) if kind is EncoderLayer else (x, place, memory)
    assert not torch.allclose(layer.train()(*inputs), layer(*inputs))
    assert_close(plain.train()(*inputs), plain.eval()(*inputs))
    assert_close(layer.eval()(*inputs), plain(*inputs))


def test_encoder_layer_without_its_blocks() -> None:
    """A dropout of 1 leaves the residual path and the norms."""
    torch.manual_seed(0)
    layer, memory = with_random_parameters(EncoderLayer(**DROP_ALL)), memory_of_noise()
    x = memory.tokens
    assert_close(layer(x, memory), norm_by_hand(norm_by_hand(x, layer.self_attn_norm), layer.ffn_norm))
    prenorm = with_random_parameters(PreNormEncoderLayer(**DROP_ALL))
    assert_close(prenorm(x, memory), x)


def test_decoder_layer_without_its_blocks() -> None:
    torch.manual_seed(0)
    layer, memory = with_random_parameters(DecoderLayer(**DROP_ALL)), memory_of_noise()
    x, place = torch.randn(2, 5, 8), QueryPlace(position=torch.randn(2, 5, 8))
    expected = x
    for norm in (layer.self_attn_norm, layer.cross_attn_norm, layer.ffn_norm):
        expected = norm_by_hand(expected, norm)
    assert_close(layer(x, place, memory), expected)
    prenorm = with_random_parameters(PreNormDecoderLayer(**DROP_ALL))
    assert_close(prenorm(x, place, memory), x)


def test_feed_forward_drops_its_hidden_features() -> None:
    ffn = with_random_parameters(FeedForward(embed_dim=8, ffn_dim=16, dropout=1.0))
    assert_close(ffn(torch.randn(3, 8)), ffn.linear2.bias.expand(3, 8))


def normalized_by_hand(image: Tensor) -> Tensor:
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return torch.stack([(image[c].float() - mean[c]) / std[c] for c in range(3)])


def test_normalize() -> None:
    image = torch.tensor([100, 150, 200], dtype=torch.uint8)[:, None, None].expand(3, 4, 5)
    # (100 - 123.675) / 58.395, (150 - 116.28) / 57.12, (200 - 103.53) / 57.375
    expected = torch.tensor([-0.405429, 0.590336, 1.681394])[:, None, None].expand(3, 4, 5)
    assert_close(tiny_detr().normalize(image), expected, atol=1e-5, rtol=0)


def backbone_inputs(training: bool, batch: list[dict]) -> list[Tensor]:
    """Return all inputs of the backbone while the model runs on `batch`."""
    model, seen = tiny_detr().train(training), []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(batch)
    return seen


def test_training_pads_with_zeros_after_normalisation() -> None:
    torch.manual_seed(0)
    batch = [image_input(96, 70, 2), image_input(64, 128, 1)]
    expected = torch.zeros(2, 3, 96, 128)
    expected[0, :, :, :70] = normalized_by_hand(batch[0]["image"])
    expected[1, :, :64] = normalized_by_hand(batch[1]["image"])
    (seen,) = backbone_inputs(True, batch)
    assert_close(seen, expected, atol=1e-5, rtol=1e-5)


def test_evaluation_runs_once_per_size_without_padding() -> None:
    torch.manual_seed(0)
    batch = [image_input(*size, 0) for size in [(96, 70), (64, 128), (96, 70)]]
    tall, wide = sorted(backbone_inputs(False, batch), key=lambda x: x.shape[-1])
    assert_close(tall, torch.stack([normalized_by_hand(batch[i]["image"]) for i in (0, 2)]), atol=1e-5, rtol=1e-5)
    assert_close(wide, normalized_by_hand(batch[1]["image"])[None], atol=1e-5, rtol=1e-5)


def check_xavier(matrix: Tensor) -> None:
    """Check for uniform entries within sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010, equation 16), whose
    standard deviation is the bound over sqrt(3).
    """
    rows, columns = matrix.shape
    bound = math.sqrt(6 / (rows + columns))
    assert 0.9 * bound <= matrix.max() <= bound * (1 + 1e-6)
    assert 0.9 * bound <= -matrix.min() <= bound * (1 + 1e-6)
    assert matrix.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_matrices_are_xavier_uniform() -> None:
    torch.manual_seed(0)
    sizes = dict(embed_dim=32, num_heads=2, ffn_dim=64, dropout=0.0)
    encoder = Encoder(layer=EncoderLayer(**sizes), num_layers=2)
    decoder = Decoder(layer=DecoderLayer(**sizes), num_layers=2, norm=nn.LayerNorm(32))
    shapes = []
    for stack in (encoder, decoder):
        for parameter in stack.parameters():
            if parameter.dim() > 1:
                shapes.append(tuple(parameter.shape))
                check_xavier(parameter.detach())
    # in two encoder layers one attention each, in two decoder layers two each: six packed (3 C, C) projections
    assert shapes.count((96, 32)) == shapes.count((32, 32)) == 6
    assert shapes.count((64, 32)) == shapes.count((32, 64)) == 4
    check_xavier(MultiHeadAttention(embed_dim=32, num_heads=2).in_proj_weight.detach())


def two_rows(softmax: bool) -> Predictions:
    """Return two rows of one image and two queries that differ in classes, scores and boxes."""
    first, last = [[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]], [[0.0, math.log(6), 0.0], [math.log(3), 0.0, 0.0]]
    boxes = torch.tensor([[[[0.5, 0.5, 1.0, 1.0]] * 2], [[[0.5, 0.5, 0.2, 0.2], [0.25, 0.5, 0.5, 1.0]]]])
    return Predictions(logits=torch.tensor([[first], [last]]), boxes=boxes, softmax=softmax)


def test_softmax_detections_are_of_the_last_row() -> None:
    (found,) = SoftmaxPostprocess()(two_rows(softmax=True), [(10, 20)])
    assert_close(found.scores, torch.tensor([6 / 8, 3 / 5]))  # exp(log 6) / (1 + 6 + 1) and 3 / (3 + 1 + 1)
    assert found.pred_classes.tolist() == [1, 0]
    assert_close(found.pred_boxes.tensor, torch.tensor([[8.0, 4.0, 12.0, 6.0], [0.0, 0.0, 10.0, 10.0]]))


def test_top_k_detections_are_of_the_last_row() -> None:
    (found,) = TopKPostprocess(num_detections=2)(two_rows(softmax=False), [(10, 20)])
    assert_close(found.scores, torch.tensor([6 / 7, 3 / 4]))  # sigmoid(log x) = x / (1 + x)
    assert found.pred_classes.tolist() == [1, 0]
    assert_close(found.pred_boxes.tensor, torch.tensor([[8.0, 4.0, 12.0, 6.0], [0.0, 0.0, 10.0, 10.0]]))
