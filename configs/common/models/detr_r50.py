"""DETR with a ResNet-50 (Carion et al. 2020, section 4): 100 queries, 6 + 6 layers, dropout 0.1."""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import (
    DETR,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    L1Cost,
    L1Loss,
    LearnedQueries,
    SetCriterion,
    SinePositionEncoding,
    SingleScaleNeck,
    SoftmaxCost,
    SoftmaxCrossEntropy,
    SoftmaxHead,
    SoftmaxPostprocess,
    build_resnet,
)

model = L(DETR)(
    backbone=L(build_resnet)(depth=50, out_features=["res5"], norm="FrozenBN", freeze_at=2),
    neck=L(SingleScaleNeck)(
        in_feature="res5",
        in_channels=2048,
        embed_dim=256,
        position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True),
    ),
    encoder=L(Encoder)(
        layer=L(EncoderLayer)(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1),
        num_layers=6,
    ),
    queries=L(LearnedQueries)(num_queries=100, embed_dim=256),
    decoder=L(Decoder)(
        layer=L(DecoderLayer)(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1),
        num_layers=6,
        norm=L(nn.LayerNorm)(normalized_shape=256),
    ),
    head=L(SoftmaxHead)(num_classes=80, embed_dim=256),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(costs=[L(SoftmaxCost)(weight=1.0), L(L1Cost)(weight=5.0), L(GIoUCost)(weight=2.0)]),
        losses=[
            L(SoftmaxCrossEntropy)(weight=1.0, background_weight=0.1),
            L(L1Loss)(weight=5.0),
            L(GIoULoss)(weight=2.0),
        ],
    ),
    postprocess=L(SoftmaxPostprocess)(),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
