"""Region heads of TSP-RCNN with the sizes, weights and inputs of a numeric fixture."""

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.encoder import Encoder, PreNormEncoderLayer
from align_detr.modeling.losses import GIoULoss
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, SoftmaxCost
from align_detr.projects.tsp.checkpoint import convert_official_tsp_rcnn
from align_detr.projects.tsp.rcnn.losses import (
    BackgroundFocalLoss,
    DeltaL1Loss,
    ProposalCriterion,
    ProposalOwnerMatcher,
)
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes, ClassBoxes, SoftmaxClassifier
from align_detr.projects.tsp.rcnn.roi_heads import ClassWiseNMS, RoIStage, TSPROIHeads
from align_detr.projects.tsp.rcnn.rois import RoIs
from align_detr.projects.tsp.rcnn.sampling import BACKGROUND, ProposalSampler
from align_detr.projects.tsp.rcnn.transformer import RoITransformer
from align_detr.structures import Targets
from support.golden import Fixture

PYRAMID = ("p2", "p3", "p4", "p5")


def close(actual: Tensor, expected: Tensor) -> None:
    """The fixtures' tolerance: 1e-5 of the largest value, or of 1."""
    assert_close(actual, expected, atol=1e-5 * max(1.0, expected.abs().max().item()), rtol=0)


def criterion(giou: float = 2.0) -> SetCriterion:
    """The published set loss."""
    matcher = HungarianMatcher(costs=[SoftmaxCost(weight=1.0), GIoUCost(weight=giou)])
    return SetCriterion(matcher=matcher, losses=[BackgroundFocalLoss()])


def box_criterion(matcher: nn.Module | None = None, factor: float = 1.0, giou: float = 2.0) -> ProposalCriterion:
    """The published box losses, times `factor`."""
    losses = [DeltaL1Loss(weight=factor), GIoULoss(name="box_giou", weight=giou * factor)]
    return ProposalCriterion(matcher=matcher or ProposalOwnerMatcher(), losses=losses)


def build_heads(fixture: Fixture) -> TSPROIHeads:
    """Region heads of the sizes that the fixture states, with its weights."""
    config, state = fixture.meta["config"], convert_official_tsp_rcnn(fixture.weights)
    dim, classes = config["d_model"], config["num_classes"]
    options = fixture.meta["official_options"]
    weights = options["BBOX_REG_WEIGHTS"] if "IOUS" in options else [options["BBOX_REG_WEIGHTS"]]
    agnostic = options["CLS_AGNOSTIC_BBOX_REG"]
    layer = PreNormEncoderLayer(
        embed_dim=dim, num_heads=config["nhead"], ffn_dim=config["dim_feedforward"], dropout=0.0
    )
    stages = [
        RoIStage(
            transformer=RoITransformer(
                encoder=Encoder(layer=layer, num_layers=config["num_layers"], norm=nn.LayerNorm(dim)),
                embed_dim=dim,
                in_channels=config["channels"],
                resolution=config["pooler"],
            ),
            classifier=SoftmaxClassifier(num_classes=classes, embed_dim=dim),
            boxes=AgnosticBoxes(embed_dim=dim, weights=w)
            if agnostic
            else ClassBoxes(num_classes=classes, embed_dim=dim, weights=w),
        )
        for w in weights
    ]
    heads = TSPROIHeads(
        num_classes=classes,
        in_features=PYRAMID,
        pooler=ROIPooler(config["pooler"], [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
        sampler=ProposalSampler(),
        stages=stages,
        criterion=criterion(),
        box_criterion=box_criterion(),
        postprocess=ClassWiseNMS(nms_threshold=options["NMS_THRESH_TEST"]),
    )
    heads.load_state_dict({key.removeprefix("roi_heads."): value for key, value in state.items()}, strict=True)
    return heads


def image_sizes(fixture: Fixture) -> list[tuple[int, int]]:
    return [tuple(size) for size in fixture.input["image_sizes"].tolist()]


def proposals(fixture: Fixture) -> list[Instances]:
    boxes = fixture.input["proposal_boxes"].split(fixture.input["proposal_counts"].tolist())
    return [Instances(size, proposal_boxes=Boxes(x)) for size, x in zip(image_sizes(fixture), boxes, strict=True)]


def objects(fixture: Fixture) -> list[Instances]:
    counts = fixture.input["gt_counts"].tolist()
    boxes, classes = (fixture.input[key].split(counts) for key in ("gt_boxes", "gt_classes"))
    return [
        Instances(size, gt_boxes=Boxes(b), gt_classes=c)
        for size, b, c in zip(image_sizes(fixture), boxes, classes, strict=True)
    ]


def sampled(fixture: Fixture) -> tuple[RoIs, Targets]:
    """The proposals with their recorded objects, and the targets."""
    classes = fixture.meta["config"]["num_classes"]
    foreground = fixture.input["sampled_gt_classes"] < classes
    owner = torch.where(foreground, fixture.input["sampled_gt_idxs"], BACKGROUND)
    instances = proposals(fixture)
    for x, own in zip(instances, owner.split(fixture.input["proposal_counts"].tolist()), strict=True):
        x.gt_idxs = own
    return RoIs.from_instances(instances), Targets.from_instances(objects(fixture), num_classes=classes, device="cpu")
