"""The single-scale detectors with a recorded network's sizes and weights, without a backbone, and a memory of noise."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.conditional import ConditionalDecoderLayer, FirstConditionalDecoderLayer
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.encoder import Encoder, EncoderLayer, ScaledPositionEncoder
from align_detr.modeling.head import SharedHead
from align_detr.modeling.neck import SingleScaleNeck
from align_detr.modeling.query_position import AnchorPosition, ConditionalPosition
from align_detr.structures import Memory, Predictions, Targets
from support.golden import Fixture

Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Network(nn.Module):
    """A detector from backbone map to predictions."""

    def __init__(self, neck: nn.Module, encoder: nn.Module, queries: nn.Module, decoder: Decoder, head: nn.Module):
        super().__init__()
        self.neck = neck
        self.encoder = encoder
        self.queries = queries
        self.decoder = decoder
        self.head = head

    def memory(self, fixture: Fixture, features: Tensor | None = None) -> Memory:
        """The encoded tokens of the recorded map, or of `features`."""
        return self.encoder(fixture.tokens(self.neck, None if features is None else {"res5": features}))

    def forward(
        self, fixture: Fixture, features: Tensor | None = None, targets: Targets | None = None
    ) -> dict[str, Predictions]:
        """All sets; `targets` stand for training."""
        memory = self.memory(fixture, features)
        return self.decoder(self.queries(memory, None, targets), memory, self.head)


def conditional_network(fixture: Fixture, queries: nn.Module, convert: Convert, *, mask_padding: bool) -> Network:
    """Conditional-DETR and its relatives: the queries make the difference."""
    sizes = dict(**_sizes(fixture), dropout=0.0)
    encoder = Encoder(layer=EncoderLayer(**sizes), num_layers=fixture.meta["config"]["enc_layers"])
    position = ConditionalPosition(embed_dim=sizes["embed_dim"])
    return _network(fixture, encoder, queries, position, convert, sizes, mask_padding=mask_padding, temperature=10000)


def dab_network(fixture: Fixture, queries: nn.Module, convert: Convert, *, mask_padding: bool) -> Network:
    """DAB-DETR and its relatives: the queries make the difference."""
    sizes = dict(**_sizes(fixture), dropout=0.0, activation=nn.PReLU())
    encoder = ScaledPositionEncoder(
        layer=EncoderLayer(**sizes),
        num_layers=fixture.meta["config"]["enc_layers"],
        embed_dim=sizes["embed_dim"],
    )
    position = AnchorPosition(embed_dim=sizes["embed_dim"])
    return _network(
        fixture,
        encoder,
        queries,
        position,
        convert,
        sizes,
        mask_padding=mask_padding,
        temperature=20,
        refine=True,
        look_forward_twice=True,
    )


def _sizes(fixture: Fixture) -> dict[str, int]:
    config = fixture.meta["config"]
    return dict(embed_dim=config["embed_dim"], num_heads=config["num_heads"], ffn_dim=config["feedforward_dim"])


def _network(
    fixture: Fixture,
    encoder: nn.Module,
    queries: nn.Module,
    position: nn.Module,
    convert: Convert,
    sizes: dict,
    *,
    mask_padding: bool,
    temperature: float,
    **decoder: bool,
) -> Network:
    config, dim = fixture.meta["config"], sizes["embed_dim"]
    network = Network(
        SingleScaleNeck(
            in_feature="res5",
            in_channels=fixture.input["feat_res5"].shape[1],
            embed_dim=dim,
            position=SinePositionEncoding(num_features=dim // 2, temperature=temperature),
        ),
        encoder,
        queries,
        Decoder(
            layer=ConditionalDecoderLayer(**sizes, mask_padding=mask_padding),
            first_layer=FirstConditionalDecoderLayer(**sizes, mask_padding=mask_padding),
            num_layers=config["dec_layers"],
            norm=nn.LayerNorm(dim),
            query_position=position,
            **decoder,
        ),
        SharedHead(num_classes=config["num_classes"], embed_dim=dim),
    )
    network.load_state_dict(convert(fixture.weights), strict=True)
    return network.eval()


def noise_memory(dim: int) -> Memory:
    """Two images on a map of 2 x 3, the second covers its top left."""
    torch.manual_seed(2)
    padding = torch.tensor([[False] * 6, [False, False, True, True, True, True]])
    return Memory(
        tokens=torch.randn(2, 6, dim),
        position=torch.randn(2, 6, dim),
        padding=padding,
        shapes=[(2, 3)],
        valid_sizes=[[(2, 3), (1, 2)]],
    )


def assert_predictions(preds: Predictions, fixture: Fixture, prefix: str = "") -> None:
    """Logits within 3e-4, boxes within 3e-5 of the recorded ones."""
    assert_close(preds.logits, fixture.output[f"{prefix}pred_logits"], atol=3e-4, rtol=0)
    assert_close(preds.boxes, fixture.output[f"{prefix}pred_boxes"], atol=3e-5, rtol=0)


def assert_states(network: Network, fixture: Fixture) -> None:
    """Assert the recorded hidden states and references of every layer, one of them for all layers or one per layer."""
    memory = network.memory(fixture)
    hidden, references = network.decoder.decode(network.queries(memory), memory, network.head)
    assert_close(hidden, fixture.output["hidden_states"], atol=3e-4, rtol=0)
    expected = fixture.output["references"]
    for layer, reference in enumerate(references):
        assert_close(reference, expected if expected.dim() == 3 else expected[layer], atol=3e-5, rtol=0)


def assert_recognised(network: Network, fixture: Fixture) -> None:
    """Assert that the weights' own names are enough to find the key map."""
    converted = convert(fixture.weights, num_classes=fixture.meta["config"]["num_classes"])
    assert set(converted) == set(network.state_dict())


def assert_gradients(
    network: Network, features: Tensor, weights: Mapping[str, Tensor], fixture: Fixture, convert: Convert
):
    """The gradient of the map and the norm of every parameter's, within 1e-3 of the largest."""
    expected = fixture.grad["feat_res5"]
    assert_close(features.grad, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    # the head of boxes is recorded under the second of its two names
    names = [name.replace("transformer.decoder.bbox_embed", "bbox_embed") for name in fixture.meta["param_norm_names"]]
    ours = dict(network.named_parameters())
    places = [next(iter(convert({name: weights[name]}))) for name in names]
    assert sorted(places) == sorted(ours), "every parameter has a recorded norm"
    norms = torch.stack([ours[place].grad.norm() for place in places])
    expected = fixture.grad["param_norms"]
    assert_close(norms, expected, atol=1e-3 * expected.max().item(), rtol=1e-3)
