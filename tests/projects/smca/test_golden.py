"""SMCA against the reference network, and the key map that loads its weights."""

from torch import nn
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.encoder import Encoder, EncoderLayer
from align_detr.modeling.head import SharedHead
from align_detr.modeling.queries import LearnedQueries
from align_detr.projects.smca import ExtentNeck, ModulatedDecoder, ModulatedDecoderLayer
from support.golden import Fixture, fixtures


def build(fixture: Fixture) -> nn.ModuleDict:
    """Build the parts behind the backbone with the fixture's sizes and weights."""
    config = fixture.meta["config"]
    assert config["dynamic_scale"] == "type3"
    dim = config["embed_dim"]
    sizes = dict(embed_dim=dim, num_heads=config["num_heads"], ffn_dim=config["feedforward_dim"], dropout=0.0)
    model = nn.ModuleDict(
        dict(
            neck=ExtentNeck(
                in_feature="res5",
                in_channels=fixture.input["feat_res5"].shape[1],
                embed_dim=dim,
                position=SinePositionEncoding(num_features=dim // 2),
                stride=config["stride"],
            ),
            encoder=Encoder(layer=EncoderLayer(**sizes), num_layers=config["enc_layers"]),
            queries=LearnedQueries(num_queries=config["num_queries"], embed_dim=dim),
            decoder=ModulatedDecoder(
                layer=ModulatedDecoderLayer(**sizes, smooth=config["smooth"]),
                num_layers=config["dec_layers"],
                embed_dim=dim,
                norm=nn.LayerNorm(dim),
            ),
            head=SharedHead(num_classes=config["num_classes"] + 1, embed_dim=dim, eps=1e-5),  # a row that is never used
        )
    )
    model.load_state_dict(convert(fixture.weights, num_classes=None), strict=True)
    return model.eval()


@fixtures("smca_detr*")
def test_forward(fixture: Fixture) -> None:
    model = build(fixture)
    memory = model.encoder(fixture.tokens(model.neck))
    preds = model.decoder(model.queries(memory), memory, model.head)["main"]
    assert_close(preds.logits, fixture.output["pred_logits"], atol=3e-4, rtol=0)
    assert_close(preds.boxes, fixture.output["pred_boxes"], atol=3e-5, rtol=0)
