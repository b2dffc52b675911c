"""Deformable-DETR with a ResNet-50 (Zhu et al. 2021): 300 queries, 4 levels, 6 + 6 layers, dropout 0.1.

The settings are those of the authors' repository. detrex's port differs: class weight 1 instead of 2, logits bounded
with 1e-3 instead of 1e-5, 1e-6 in the overlaps, only the stem frozen, 300 detections.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import (
    Decoder,
    DeformableDecoderLayer,
    DeformableDETR,
    DeformableEncoder,
    DeformableEncoderLayer,
    FocalCost,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    L1Cost,
    L1Loss,
    MultiScaleNeck,
    PointQueries,
    SetCriterion,
    SharedHead,
    SigmoidFocalLoss,
    SinePositionEncoding,
    TopKPostprocess,
    build_resnet,
)

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=1024, dropout=0.1, num_levels=4, num_points=4)

model = L(DeformableDETR)(
    backbone=L(build_resnet)(depth=50, out_features=["res3", "res4", "res5"], norm="FrozenBN", freeze_at=2),
    neck=L(MultiScaleNeck)(
        in_channels=dict(res3=512, res4=1024, res5=2048),
        embed_dim=256,
        num_levels=4,
        position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True, offset=-0.5),
    ),
    encoder=L(DeformableEncoder)(layer=L(DeformableEncoderLayer)(**sizes), num_layers=6),
    queries=L(PointQueries)(num_queries=300, embed_dim=256),
    decoder=L(Decoder)(layer=L(DeformableDecoderLayer)(**sizes), num_layers=6),
    head=L(SharedHead)(num_classes=80, embed_dim=256, size_logit=-2.0, eps=1e-5),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(costs=[L(FocalCost)(weight=2.0), L(L1Cost)(weight=5.0), L(GIoUCost)(weight=2.0)]),
        losses=[
            L(SigmoidFocalLoss)(weight=2.0, alpha=0.25, gamma=2.0),
            L(L1Loss)(weight=5.0),
            L(GIoULoss)(weight=2.0),
        ],
    ),
    postprocess=L(TopKPostprocess)(num_detections=100),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
