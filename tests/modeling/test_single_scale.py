"""Conditional-, DAB-, Group- and Align-DAB-DETR as wholes: batches, padding, precision, images without objects."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from parts import image_input
from single_scale import noise_memory
from torch import nn
from torch.testing import assert_close

from align_detr.config import add_align_detr_config
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.backbone import build_small_resnet
from align_detr.modeling.conditional import ConditionalDecoderLayer, FirstConditionalDecoderLayer
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.encoder import Encoder, EncoderLayer, ScaledPositionEncoder
from align_detr.modeling.head import SharedHead
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.meta_arch import DETR
from align_detr.modeling.neck import SingleScaleNeck
from align_detr.modeling.postprocess import TopKPostprocess
from align_detr.modeling.queries import AnchorQueries, ConditionalQueries, GroupQueries, PatternAnchorQueries
from align_detr.modeling.query_position import AnchorPosition, ConditionalPosition
from align_detr.modeling.weighting import PrimeSampleWeighting

DIM, CLASSES = 16, 3
# Differently sized, two alike, one not a multiple of any stride.
SIZES = [(96, 70), (64, 128), (96, 70), (33, 47)]


def criterion(aligned: bool) -> SetCriterion:
    return SetCriterion(
        matcher=HungarianMatcher(
            costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)],
            copies={"main": [3, 1]} if aligned else None,
        ),
        losses=[IABCELoss() if aligned else SigmoidFocalLoss(), L1Loss(weight=5.0), GIoULoss(weight=2.0, eps=1e-6)],
        weighting=PrimeSampleWeighting() if aligned else None,
    )


def detector(name: str, mask_padding: bool = True) -> DETR:
    """A tiny detector of that kind with random weights."""
    torch.manual_seed(0)
    sizes = dict(embed_dim=DIM, num_heads=2, ffn_dim=32, dropout=0.0)
    small = dict(num_queries=8, embed_dim=DIM)
    anchors = name in ("dab", "patterns", "aligned")
    queries = {
        "conditional": lambda: ConditionalQueries(**small),
        "group": lambda: GroupQueries(**small, groups=3),
        "patterns": lambda: PatternAnchorQueries(**small, num_patterns=2),
    }.get(name, lambda: AnchorQueries(**small))()
    if anchors:
        sizes["activation"] = nn.PReLU()
        encoder = ScaledPositionEncoder(layer=EncoderLayer(**sizes), num_layers=2, embed_dim=DIM)
    else:
        encoder = Encoder(layer=EncoderLayer(**sizes), num_layers=2)
    model = DETR(
        backbone=build_small_resnet(channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1)),
        neck=SingleScaleNeck(
            in_feature="res5", in_channels=24, embed_dim=DIM, position=SinePositionEncoding(num_features=DIM // 2)
        ),
        encoder=encoder,
        queries=queries,
        decoder=Decoder(
            layer=ConditionalDecoderLayer(**sizes, mask_padding=mask_padding),
            first_layer=FirstConditionalDecoderLayer(**sizes, mask_padding=mask_padding),
            num_layers=2,
            norm=nn.LayerNorm(DIM),
            query_position=(AnchorPosition if anchors else ConditionalPosition)(embed_dim=DIM),
            refine=anchors,
            look_forward_twice=anchors,
        ),
        head=SharedHead(num_classes=CLASSES, embed_dim=DIM),
        criterion=criterion(aligned=name == "aligned"),
        postprocess=TopKPostprocess(num_detections=20),
    )
    for parameter in model.head.bbox_embed.parameters():  # it starts with zeros, which would hide what comes before
        nn.init.normal_(parameter, std=0.2)
    return model


KINDS = ["conditional", "dab", "patterns", "group", "aligned"]


def inputs(counts: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n, num_classes=CLASSES) for size, n in zip(SIZES, counts, strict=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_batch_size_does_not_change_detections(kind: str) -> None:
    model, images = detector(kind).eval(), inputs([0] * len(SIZES))
    with torch.no_grad():
        together = model(images)
        alone = [model([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-3, rtol=0)
        assert_close(a.scores, b.scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [[2, 0, 1], [0, 0], [30, 1]], ids=["one empty", "all empty", "crowded"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str, counts: list[int]) -> None:
    model = detector(kind).train()
    losses = model(inputs(counts))
    assert losses.keys() == {f"loss_{name}{layer}" for name in ("class", "bbox", "giou") for layer in ("", "_0")}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_trains(kind: str) -> None:
    model, batch = detector(kind).train(), inputs([2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
        preds = model.predict(model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch])))
    assert preds["main"].boxes.dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_seen(kind: str) -> None:
    """Other contents of padded tokens change nothing; without the mask in cross-attention they do."""
    memory = noise_memory(DIM)
    other = memory.with_tokens(torch.where(memory.padding[..., None], 3.0, memory.tokens))
    for mask_padding in (True, False):
        model = detector(kind, mask_padding=mask_padding).eval()
        first, second = (model.predict(model.encoder(m))["main"].logits for m in (memory, other))
        assert_close(first[:, 0], second[:, 0])
        assert torch.allclose(first[:, 1], second[:, 1], atol=1e-5) == mask_padding


CONFIGS = {
    "ConditionalDETR": "conditional_detr/conditional_detr_r50_50ep.py",
    "DABDETR": "align_detr/align_dab_detr_r50_50ep.py",
    "DNDETR": "dn_detr/dn_detr_r50_50ep.py",
    "GroupDETR": "group_detr/group_detr_r50_50ep.py",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_registered_and_built_from_yacs_keys(name: str) -> None:
    """Also as a subclass that another detectron2 project registers; the number of classes is stated once."""
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", f"Sub{name}{id(object())}"
    cfg.MODEL.ALIGN_DETR.CONFIG = CONFIGS[name]
    cfg.MODEL.ALIGN_DETR.OVERRIDES = [
        "model.head.num_classes=3",
        "model.backbone.depth=18",
        "model.neck.in_channels=512",
    ]
    detector = META_ARCH_REGISTRY.get(name)
    META_ARCH_REGISTRY._do_register(cfg.MODEL.META_ARCHITECTURE, type("Sub", (detector,), {}))
    model = build_model(cfg)
    assert isinstance(model, detector) and issubclass(detector, DETR)
    assert model.head.class_embed.out_features == 3
    if name == "DNDETR":
        assert model.queries.label_embed.num_embeddings == 3 + 1, "one for each class and one for unknown"
