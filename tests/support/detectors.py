"""Tiny single-scale detectors of every kind."""

import torch
from torch import nn

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
KINDS = ["conditional", "dab", "patterns", "group", "aligned"]


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
