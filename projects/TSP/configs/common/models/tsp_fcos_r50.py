"""TSP-FCOS with a ResNet-50 (Sun et al. 2021), with the values of the official launch script."""

from detectron2.config import LazyCall as L
from detectron2.modeling import FPN

from align_detr.modeling import HungarianMatcher, SetCriterion, SinePositionEncoding
from align_detr.projects.tsp import (
    TSPFCOS,
    CenternessClassCost,
    CenternessLoss,
    DenseFocalLoss,
    ExtraLevels,
    FoIEncoding,
    FoISelection,
    PointAssigner,
    PointCriterion,
    PointGIoUCost,
    PointGIoULoss,
    PointHead,
    PointOwnerMatcher,
    PointPostprocess,
    PointTowers,
    RestrictedFocalLoss,
    build_msra_resnet,
)

from ..encoder import encoder

model = L(TSPFCOS)(
    backbone=L(FPN)(
        bottom_up=L(build_msra_resnet)(depth=50, out_features=["res3", "res4", "res5"], norm="FrozenBN", freeze_at=2),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(ExtraLevels)(channels=256, norm="SyncBN"),
    ),
    points=L(PointTowers)(
        in_features=["p3", "p4", "p5", "p6", "p7"],
        strides=[8, 16, 32, 64, 128],
        channels=256,
        num_convs=4,
        num_classes="${..head.num_classes}",  # 1: the paper's binary classifier
        position=L(SinePositionEncoding)(num_features=256, temperature=10000, normalize=True),
    ),
    assigner=L(PointAssigner)(sizes=[64, 128, 256, 512], radius=1.5),
    selection=L(FoISelection)(num_queries=700, keep=(0.7, 1.0), boost=True, keep_padding=False),
    encoding=L(FoIEncoding)(in_channels=512, embed_dim=512, num_levels=5),
    encoder=encoder,
    head=L(PointHead)(num_classes=80, embed_dim=512, num_levels=5),
    criterion=L(PointCriterion)(
        matched=L(SetCriterion)(
            matcher=L(HungarianMatcher)(
                costs=[L(CenternessClassCost)(weight=1.0), L(PointGIoUCost)(weight=2.0, smooth=1.0)]
            ),
            losses=[L(RestrictedFocalLoss)(weight=1.0, unmatched_weight=0.1, matched_norm=2.0, foreground_norm=0.2)],
        ),
        foreground=L(SetCriterion)(
            matcher=L(PointOwnerMatcher)(),
            losses=[L(PointGIoULoss)(weight=1.0, smooth=1.0), L(CenternessLoss)(weight=1.0)],
        ),
        dense=L(DenseFocalLoss)(weight=1.0),
    ),
    postprocess=L(PointPostprocess)(num_detections=100, nms_threshold=0.6),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[1.0, 1.0, 1.0],
)
