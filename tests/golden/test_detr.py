"""DETR against the reference network: hidden states, predictions, gradients, and the key map that loads its weights."""

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.checkpoint.detr import convert_official_detr
from align_detr.inference.optimized.fused import Kernels
from align_detr.inference.optimized.parts import LastLayerDecoder
from align_detr.inference.optimized.replacing import Replacements
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import DecoderLayer, PreNormDecoderLayer
from align_detr.modeling.encoder import Encoder, EncoderLayer, PreNormEncoderLayer
from align_detr.modeling.head import SoftmaxHead
from align_detr.modeling.neck import SingleScaleNeck
from align_detr.modeling.queries import LearnedQueries
from align_detr.structures import Memory
from support.compiling import compiled
from support.golden import Fixture, fixtures


def build(fixture: Fixture) -> nn.ModuleDict:
    """Build the parts of a DETR beyond its backbone, in the fixture's sizes, with its weights."""
    config = fixture.meta["config"]
    dim, pre_norm = config["embed_dim"], config["normalize_before"]
    sizes = dict(embed_dim=dim, num_heads=config["num_heads"], ffn_dim=config["feedforward_dim"], dropout=0.0)
    model = nn.ModuleDict(
        dict(
            neck=SingleScaleNeck(
                in_feature="res5",
                in_channels=config["feature_channels"],
                embed_dim=dim,
                position=SinePositionEncoding(num_features=dim // 2),
            ),
            encoder=Encoder(
                layer=PreNormEncoderLayer(**sizes) if pre_norm else EncoderLayer(**sizes),
                num_layers=config["enc_layers"],
                norm=nn.LayerNorm(dim) if pre_norm else None,
            ),
            queries=LearnedQueries(num_queries=config["num_queries"], embed_dim=dim),
            decoder=Decoder(
                layer=PreNormDecoderLayer(**sizes) if pre_norm else DecoderLayer(**sizes),
                num_layers=config["dec_layers"],
                norm=nn.LayerNorm(dim),
            ),
            head=SoftmaxHead(num_classes=config["num_classes"], embed_dim=dim),
        )
    )
    model.load_state_dict(convert_official_detr(fixture.weights, num_classes=config["num_classes"]), strict=True)
    return model.eval()


@fixtures("detr*")
def test_forward(fixture: Fixture) -> None:
    model = build(fixture)
    memory = fixture.tokens(model.neck)
    assert_close(memory.position, fixture.output["pos_embed"].flatten(2).transpose(1, 2), atol=1e-5, rtol=0)
    memory = model.encoder(memory)
    assert_close(memory.tokens, fixture.output["memory"].flatten(2).transpose(1, 2), atol=3e-4, rtol=0)
    queries = model.queries(memory)
    assert_close(
        model.decoder.decode(queries, memory, model.head)[0], fixture.output["hidden_states"], atol=3e-4, rtol=0
    )
    preds = model.decoder(queries, memory, model.head)["main"]
    assert_close(preds.logits, fixture.output["pred_logits"], atol=3e-4, rtol=0)
    assert_close(preds.boxes, fixture.output["pred_boxes"], atol=3e-5, rtol=0)


@fixtures("detr*")
def test_compiled_forward(fixture: Fixture) -> None:
    """Encoder, queries, decoder and head as one compiled graph give what is recorded."""
    model = build(fixture)

    def predict(memory: Memory) -> tuple[Tensor, Tensor]:
        memory = model.encoder(memory)
        preds = model.decoder(model.queries(memory), memory, model.head)["main"]
        return preds.logits, preds.boxes

    with torch.no_grad():
        logits, boxes = compiled(predict)(fixture.tokens(model.neck))
    assert_close(logits, fixture.output["pred_logits"], atol=3e-4, rtol=0)
    assert_close(boxes, fixture.output["pred_boxes"], atol=3e-5, rtol=0)


@fixtures("detr*")
def test_optimized_forward(fixture: Fixture) -> None:
    """The parts that `optimize_for_inference` puts in their places predict what is recorded."""
    model = build(fixture)
    Replacements(Kernels(torch.device("cpu"), torch.float32)).apply(model)
    decoder = LastLayerDecoder(model.decoder, model.head)
    with torch.inference_mode():
        for memory in (fixture.tokens(model.neck), fixture.tokens(model.neck)):  # new sizes, and kept ones
            memory = model.encoder(memory)
            preds = decoder(model.queries(memory), memory, model.head)["main"]
            assert_close(preds.logits, fixture.output["pred_logits"][-1:], atol=3e-4, rtol=0)
            assert_close(preds.boxes, fixture.output["pred_boxes"][-1:], atol=3e-5, rtol=0)


@fixtures("detr*", having=["grad/"])
def test_gradients(fixture: Fixture) -> None:
    model, given = build(fixture), fixture.input
    features = given["feat_res5"].clone().requires_grad_()
    memory = model.encoder(fixture.tokens(model.neck, {"res5": features}))
    preds = model.decoder(model.queries(memory), memory, model.head)["main"]
    (
        (preds.logits * given["cotangent_pred_logits"]).sum() + (preds.boxes * given["cotangent_pred_boxes"]).sum()
    ).backward()
    expected = fixture.grad["feat_res5"]
    assert_close(features.grad, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)

    names = fixture.meta["param_norm_names"]
    shapes = {name: fixture.weights[name] for name in names}
    num_classes = fixture.meta["config"]["num_classes"]
    ours = dict(model.named_parameters())
    norms = torch.stack(
        [
            ours[next(iter(convert_official_detr({name: value}, num_classes=num_classes)))].grad.norm()
            for name, value in shapes.items()
        ]
    )
    expected = fixture.grad["param_norms"]
    assert len(ours) == len(names), "every parameter has a recorded norm"
    assert_close(norms, expected, atol=1e-3 * expected.max().item(), rtol=1e-3)
