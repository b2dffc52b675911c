"""Anchor-DETR against the reference network, with both kinds of attention, and the key map that loads its weights."""

from torch import nn
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import DecoderLayer
from align_detr.modeling.encoder import Encoder, EncoderLayer
from align_detr.modeling.head import SharedHead
from align_detr.projects.anchor_detr import (
    AnchorNeck,
    AnchorPointQueries,
    PointEncoding,
    RowColumnDecoderLayer,
    RowColumnEncoderLayer,
    RowColumnEncoding,
    RowColumnPosition,
)
from align_detr.structures import Memory, Predictions
from support.golden import Fixture, fixtures


def build(fixture: Fixture) -> nn.ModuleDict:
    """Build the parts behind the backbone with the fixture's sizes and weights; padding is treated as in the port."""
    config, channels = fixture.meta["config"], fixture.input["feat_res5"].shape[1]
    decoupled, dim = config["attention_type"] == "RCDA", config["embed_dim"]
    sizes = dict(embed_dim=dim, num_heads=config["num_heads"], ffn_dim=config["feedforward_dim"], dropout=0.0)
    encoding = RowColumnEncoding if decoupled else PointEncoding
    if decoupled:
        encoder_layer, decoder_layer = (
            kind(**sizes, average_padding=True) for kind in (RowColumnEncoderLayer, RowColumnDecoderLayer)
        )
    else:
        encoder_layer, decoder_layer = EncoderLayer(**sizes), DecoderLayer(**sizes)
    model = nn.ModuleDict(
        dict(
            neck=AnchorNeck(
                in_feature="res5",
                in_channels=channels,
                embed_dim=dim,
                position=encoding(embed_dim=dim),
                norm_padding=True,
            ),
            encoder=Encoder(layer=encoder_layer, num_layers=config["enc_layers"]),
            queries=AnchorPointQueries(
                num_queries=config["num_query_position"], num_patterns=config["num_query_pattern"], embed_dim=dim
            ),
            decoder=Decoder(
                layer=decoder_layer,
                num_layers=config["dec_layers"],
                query_position=RowColumnPosition() if decoupled else None,
            ),
            head=SharedHead(num_classes=config["num_classes"], embed_dim=dim, eps=1e-3),
        )
    )
    model.load_state_dict(convert(fixture.weights, num_classes=config["num_classes"]), strict=True)
    return model.eval()


def encode(model: nn.ModuleDict, fixture: Fixture) -> Memory:
    return model.encoder(fixture.tokens(model.neck))


def predict(model: nn.ModuleDict, memory: Memory) -> Predictions:
    return model.decoder(model.queries(memory), memory, model.head)["main"]


@fixtures("anchor_detr*")
def test_forward(fixture: Fixture) -> None:
    model = build(fixture)
    preds = predict(model, encode(model, fixture))
    assert_close(preds.logits, fixture.output["pred_logits"], atol=3e-4, rtol=0)
    assert_close(preds.boxes, fixture.output["pred_boxes"], atol=3e-5, rtol=0)
