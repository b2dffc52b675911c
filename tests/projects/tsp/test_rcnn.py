"""TSP-RCNN as a whole: data without objects, refinement, precision, and detectron2's own keys."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model, build_roi_heads
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.utils.events import EventStorage
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.losses import BackgroundFocalLoss
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes
from align_detr.projects.tsp.rcnn.rpn import TowerRPNHead
from support.inputs import image_input
from support.tsp_rcnn_tiny import LOSSES, build, refining, tiny, train_once


def test_a_batch_without_objects_still_teaches_background() -> None:
    torch.manual_seed(0)
    model = build(tiny())
    losses = train_once(model, [image_input(96, 70, 0), image_input(64, 96, 0)])
    bias = model.roi_heads.stages[0].classifier.linear.bias.grad
    assert losses["loss_obj"] > 0 and losses["loss_box_l1"] == losses["loss_box_giou"] == 0
    assert bias[-1] < 0 and (bias[:-1] > 0).all()


def test_layers_of_the_encoder_start_different() -> None:
    first, second = build(tiny()).roi_heads.stages[0].transformer.encoder.layers
    assert not torch.equal(first.ffn.linear1.weight, second.ffn.linear1.weight)


def test_refinement_trains_every_stage() -> None:
    torch.manual_seed(0)
    model = build(refining())
    losses = train_once(model, [image_input(96, 70, 3), image_input(64, 96, 0)])
    stages = {"loss_obj", "loss_box_l1", "loss_box_giou"}
    assert losses.keys() == LOSSES | {f"{name}_0" for name in stages}


def test_only_class_agnostic_boxes_can_be_refined() -> None:
    node = refining()
    node.roi_heads.stages[0].boxes = tiny().roi_heads.stages[0].boxes
    node.roi_heads.stages[0].boxes.num_classes = 3
    with pytest.raises(ConfigError, match="AgnosticBoxes"):
        build(node)


def test_losses_and_classifier_must_fit_each_other() -> None:
    """The error names the keys of an R-CNN, which has no model.head."""
    node = tiny("align_tsp_rcnn_r50_36ep")
    node.roi_heads.criterion.losses = [L(BackgroundFocalLoss)()]
    message = r"BackgroundFocalLoss reads softmax .* change model\.roi_heads\.stages\.0\.classifier, or the losses"
    with EventStorage(), pytest.raises(ConfigError, match=message):
        build(node).train()([image_input(96, 70, 2), image_input(64, 96, 1)])


def test_heads_need_a_stage() -> None:
    node = tiny()
    node.roi_heads.stages = []
    with pytest.raises(ConfigError, match=r"model\.roi_heads\.stages is empty: give at least one RoIStage\.$"):
        build(node)


def test_no_image_can_be_left_out_of_a_step() -> None:
    node = tiny()
    node.roi_heads.criterion.matcher.on_nonfinite = "skip"
    with pytest.raises(ConfigError, match='roi_heads.criterion.matcher.on_nonfinite is "skip"'):
        build(node)


def test_bfloat16() -> None:
    torch.manual_seed(0)
    batch = [image_input(96, 70, 3), image_input(64, 96, 2)]
    model = build(tiny())
    torch.manual_seed(1)
    expected = train_once(model, batch)
    torch.manual_seed(1)
    model = build(tiny())
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = train_once(model, batch)
        with torch.no_grad():
            results = model.eval()(batch)
    assert_close(losses["loss_obj"], expected["loss_obj"], rtol=0.05, atol=0)
    assert all(len(x["instances"]) for x in results)
    assert all(torch.isfinite(x["instances"].pred_boxes.tensor).all() for x in results)
    assert results[0]["instances"].pred_boxes.tensor.dtype == torch.float32


def detectron2s_own_config(**more: Any) -> CfgNode:
    """Return the config of detectron2's FPN detector with both heads replaced; `more` are keys of MODEL.ROI_HEADS."""
    cfg = get_cfg()
    changes = {
        "DEVICE": "cpu",
        "BACKBONE.NAME": "build_resnet_fpn_backbone",
        "RESNETS.DEPTH": 18,
        "RESNETS.RES2_OUT_CHANNELS": 64,
        "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "FPN.OUT_CHANNELS": 16,
        "ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "RPN.HEAD_NAME": "TowerRPNHead",
        "RPN.CONV_DIMS": [-1, -1],
        "RPN.POST_NMS_TOPK_TRAIN": 50,
        "RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "ROI_HEADS.NAME": "TSPROIHeads",
        "ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "ROI_HEADS.NUM_CLASSES": 3,
        "ROI_HEADS.NMS_THRESH_TEST": 0.6,
        "ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        **{f"ROI_HEADS.{key}": value for key, value in more.items()},
    }
    cfg.merge_from_list([item for key, value in changes.items() for item in (f"MODEL.{key}", value)])
    return cfg


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "TSPRCNN"])
def test_swapped_into_detectron2s_own_config(name: str) -> None:
    cfg = detectron2s_own_config()
    cfg.MODEL.META_ARCHITECTURE = name
    torch.manual_seed(0)
    model = build_model(cfg)
    assert type(model).__name__ == name and isinstance(model, GeneralizedRCNN)
    assert isinstance(model.proposal_generator.rpn_head, TowerRPNHead)
    assert len(model.proposal_generator.rpn_head.objectness_tower.norms) == 5
    assert len(model.proposal_generator.rpn_head.objectness_tower.convs) == 2
    heads = model.roi_heads
    assert heads.postprocess.nms_threshold == 0.6 and heads.sampler.batch_size_per_image == 512
    assert heads.stages[0].classifier.linear.weight.shape == (4, 512)
    assert heads.stages[0].transformer.projection.in_features == 16 * 7 * 7
    assert train_once(model, [image_input(96, 70, 3), image_input(64, 96, 0)]).keys() == LOSSES


def test_a_subclass_reads_detectron2s_keys() -> None:
    class Derived(TSPRCNN):
        pass

    model = Derived(detectron2s_own_config())
    assert type(model) is Derived and model.num_classes == 3


def test_region_heads_take_detectron2s_numbers() -> None:
    """TSPROIHeads follows every key that detectron2's region heads follow."""
    cfg = detectron2s_own_config(
        IN_FEATURES=["p3", "p4", "p5"],
        IOU_THRESHOLDS=[0.6],
        BATCH_SIZE_PER_IMAGE=40,
        POSITIVE_FRACTION=0.4,
        SCORE_THRESH_TEST=0.03,
    )
    box = cfg.MODEL.ROI_BOX_HEAD
    box.POOLER_RESOLUTION, box.POOLER_SAMPLING_RATIO, box.POOLER_TYPE = 5, 2, "ROIAlign"
    box.CLS_AGNOSTIC_BBOX_REG, box.BBOX_REG_WEIGHTS = True, (20.0, 20.0, 10.0, 10.0)
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    shapes = {f"p{k}": ShapeSpec(channels=16, stride=2**k) for k in range(2, 7)}
    heads = build_roi_heads(cfg, shapes)
    sampler, post, stage = heads.sampler, heads.postprocess, heads.stages[0]
    assert (sampler.iou_threshold, sampler.batch_size_per_image, sampler.positive_fraction) == (0.6, 40, 0.4)
    assert (post.nms_threshold, post.score_threshold, post.num_detections) == (0.6, 0.03, 7)
    poolers = heads.pooler.level_poolers
    assert heads.in_features == ["p3", "p4", "p5"] and [p.spatial_scale for p in poolers] == [1 / 8, 1 / 16, 1 / 32]
    assert all(p.sampling_ratio == 2 and not p.aligned for p in poolers)
    assert stage.transformer.projection.in_features == 16 * 5 * 5
    assert type(stage.boxes) is AgnosticBoxes and stage.boxes.coder.weights == (20, 20, 10, 10)
    assert stage.classifier.linear.out_features == 4


@pytest.mark.parametrize(
    "change, message",
    [
        (["MODEL.MASK_ON", True], "MODEL.MASK_ON is True"),
        (["MODEL.KEYPOINT_ON", True], "MODEL.KEYPOINT_ON is True"),
        (["MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.4, 0.5], "MODEL.ROI_HEADS.IOU_LABELS", [0, -1, 1]], "IOU_THRESHOLDS is"),
        (["MODEL.ROI_HEADS.IOU_LABELS", [1, 0]], "IOU_LABELS"),
    ],
)
def test_keys_that_these_heads_cannot_obey(change: list, message: str) -> None:
    cfg = detectron2s_own_config()
    cfg.merge_from_list(change)
    with pytest.raises(ConfigError, match=message):
        build_roi_heads(cfg, {f"p{k}": ShapeSpec(channels=16, stride=2**k) for k in range(2, 7)})


def test_the_proposal_head_needs_equal_levels() -> None:
    cfg = detectron2s_own_config()
    shapes = [ShapeSpec(channels=c, stride=2**k) for k, c in zip(range(2, 7), [16, 16, 8, 16, 16], strict=True)]
    with pytest.raises(ConfigError, match=r"same number of channels and of anchors"):
        TowerRPNHead(cfg, shapes)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256, 300], [512]]
    with pytest.raises(ConfigError, match=r"same number of channels and of anchors"):
        TowerRPNHead(cfg, [ShapeSpec(channels=16, stride=2**k) for k in range(2, 7)])


def test_the_proposal_head_counts_its_convolutions_and_keeps_their_width() -> None:
    cfg, shapes = detectron2s_own_config(), [ShapeSpec(channels=16, stride=2**k) for k in range(2, 7)]
    cfg.MODEL.RPN.CONV_DIMS = [-1, 16, -1]
    head = TowerRPNHead(cfg, shapes)
    assert len(head.delta_tower.convs) == len(head.objectness_tower.norms[4]) == 3
    cfg.MODEL.RPN.CONV_DIMS = [-1, 32]
    with pytest.raises(ConfigError, match=r"CONV_DIMS is \[-1, 32\]"):
        TowerRPNHead(cfg, shapes)
