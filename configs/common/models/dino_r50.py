"""DINO with a ResNet-50 and four scales (Zhang et al. 2022): 900 queries, 100 denoising pairs, no dropout.

The settings are detrex's, on which the published configs of Align-DETR build. The original repository encodes positions
with temperature 20 and no offset, shares one head among its layers (`SharedHead`), has class weight 1 and bounds logits
with 1e-3 as here, and has one unused row more in the table of denoising labels.
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import (
    DINO,
    ClassProposals,
    ContrastiveDenoisingQueries,
    Decoder,
    DeformableDecoderLayer,
    DeformableEncoder,
    DeformableEncoderLayer,
    FocalCost,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    L1Cost,
    L1Loss,
    LayerwiseHead,
    MixedSelectionQueries,
    MultiScaleNeck,
    ReferencePosition,
    SetCriterion,
    SigmoidFocalLoss,
    SinePositionEncoding,
    TopKPostprocess,
    build_resnet,
)

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.0, num_levels=4, num_points=4)

model = L(DINO)(
    backbone=L(build_resnet)(depth=50, out_features=["res3", "res4", "res5"], norm="FrozenBN", freeze_at=1),
    neck=L(MultiScaleNeck)(
        in_channels=dict(res3=512, res4=1024, res5=2048),
        embed_dim=256,
        num_levels=4,
        position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True, offset=-0.5),
    ),
    encoder=L(DeformableEncoder)(layer=L(DeformableEncoderLayer)(**sizes), num_layers=6),
    proposals=L(ClassProposals)(num_queries=900, num_classes="${..head.num_classes}", embed_dim=256),
    queries=L(ContrastiveDenoisingQueries)(
        main=L(MixedSelectionQueries)(num_queries=900, embed_dim=256),
        num_classes="${..head.num_classes}",
        embed_dim=256,
        dn_number=100,
        label_noise=0.5,
        box_noise=1.0,
        max_queries=200,  # per image: 100 pairs; an image with more objects denoises a random choice of them
    ),
    decoder=L(Decoder)(
        layer=L(DeformableDecoderLayer)(**sizes),
        num_layers=6,
        norm=L(nn.LayerNorm)(normalized_shape=256),
        query_position=L(ReferencePosition)(embed_dim=256),
        refine=True,
        look_forward_twice=True,
    ),
    head=L(LayerwiseHead)(num_layers=6, num_classes=80, embed_dim=256),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(
            costs=[L(FocalCost)(weight=2.0), L(L1Cost)(weight=5.0), L(GIoUCost)(weight=2.0, eps=1e-6)]
        ),
        losses=[L(SigmoidFocalLoss)(weight=1.0), L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0, eps=1e-6)],
    ),
    postprocess=L(TopKPostprocess)(num_detections=300),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
