"""TSP-RCNN with a ResNet-50 (Sun et al. 2021): detectron2's R-CNN with other heads.

`model.roi_heads.num_classes` is the number of classes. The values are those of the official launch script, which partly
differ from its yaml file.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling import FPN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN

from align_detr.modeling import GIoUCost, GIoULoss, HungarianMatcher, SetCriterion, SoftmaxCost
from align_detr.projects.tsp import (
    TSPRCNN,
    BackgroundFocalLoss,
    ClassBoxes,
    ClassWiseNMS,
    DeltaL1Loss,
    ExtraLevels,
    ProposalCriterion,
    ProposalOwnerMatcher,
    ProposalSampler,
    RoIStage,
    RoITransformer,
    SoftmaxClassifier,
    TowerRPNHead,
    TSPROIHeads,
    build_msra_resnet,
)

from ..encoder import encoder

model = L(TSPRCNN)(
    backbone=L(FPN)(
        bottom_up=L(build_msra_resnet)(
            depth=50, out_features=["res2", "res3", "res4", "res5"], norm="FrozenBN", freeze_at=2
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(ExtraLevels)(channels="${..out_channels}", in_feature="p5", norm="SyncBN"),
    ),
    proposal_generator=L(RPN)(
        in_features=["p3", "p4", "p5", "p6", "p7"],
        head=L(TowerRPNHead)(
            in_channels="${...backbone.out_channels}", num_anchors=9, num_levels=5, num_convs=2, norm="SyncBN"
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[
                [32, 40.32, 51.80],
                [64, 80.63, 101.59],
                [128, 161.27, 203.19],
                [256, 322.54, 406.37],
                [512, 645.08, 812.75],
            ],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(700, 700),
        nms_thresh=0.7,
        loss_weight=dict(loss_rpn_cls=1.0, loss_rpn_loc=2.0),
    ),
    roi_heads=L(TSPROIHeads)(
        num_classes=80,
        in_features=["p2", "p3", "p4", "p5"],
        pooler=L(ROIPooler)(
            output_size=7, scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32), sampling_ratio=0, pooler_type="ROIAlignV2"
        ),
        sampler=L(ProposalSampler)(
            iou_threshold=0.5, batch_size_per_image=700, positive_fraction=0.25, keep_range=(0.7, 1.0)
        ),
        stages=[
            L(RoIStage)(
                transformer=L(RoITransformer)(
                    encoder=encoder,
                    embed_dim=512,
                    in_channels="${.....backbone.out_channels}",
                    resolution="${....pooler.output_size}",
                ),
                classifier=L(SoftmaxClassifier)(num_classes="${....num_classes}", embed_dim=512),
                boxes=L(ClassBoxes)(num_classes="${....num_classes}", embed_dim=512, weights=(10, 10, 5, 5)),
                iou_threshold=0.5,
            )
        ],
        criterion=L(SetCriterion)(
            matcher=L(HungarianMatcher)(costs=[L(SoftmaxCost)(weight=1.0), L(GIoUCost)(weight=2.0)]),
            losses=[L(BackgroundFocalLoss)(weight=1.0, background_weight=0.1)],
        ),
        box_criterion=L(ProposalCriterion)(
            matcher=L(ProposalOwnerMatcher)(),
            losses=[L(DeltaL1Loss)(weight=1.0), L(GIoULoss)(name="box_giou", weight=2.0)],
        ),
        postprocess=L(ClassWiseNMS)(nms_threshold=0.7, score_threshold=0.0, num_detections=100),
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="RGB",
)
