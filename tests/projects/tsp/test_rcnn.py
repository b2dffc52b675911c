"""TSP-RCNN as a whole: data without objects, refinement, precision, and detectron2's own keys."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.utils.events import EventStorage
from parts import image_input
from torch.testing import assert_close
from tsp_rcnn_tiny import LOSSES, build, refining, tiny, train_once

from align_detr.config import add_align_detr_config
from align_detr.errors import ConfigError, DatasetError
from align_detr.projects.tsp.rcnn import TSPRCNN
from align_detr.projects.tsp.rpn import TowerRPNHead


@pytest.mark.parametrize("counts", [(3, 0), (0, 0), (1, 9)])
@pytest.mark.parametrize("name", ["tsp_rcnn_r50_36ep", "align_tsp_rcnn_r50_36ep"])
def test_images_without_objects(name: str, counts: tuple[int, int]) -> None:
    torch.manual_seed(0)
    batch = [image_input(96, 70, counts[0]), image_input(64, 96, counts[1])]
    assert train_once(build(tiny(name)), batch).keys() == LOSSES


def test_a_batch_without_objects_still_teaches_background() -> None:
    torch.manual_seed(0)
    model = build(tiny())
    losses = train_once(model, [image_input(96, 70, 0), image_input(64, 96, 0)])
    bias = model.roi_heads.stages[0].classifier.linear.bias.grad
    assert losses["loss_obj"] > 0 and losses["loss_box_l1"] == losses["loss_box_giou"] == 0
    assert bias[-1] < 0 and (bias[:-1] > 0).all()


def test_an_annotation_that_cannot_be_used_is_named() -> None:
    batch = [image_input(96, 70, 2), {**image_input(64, 96, 1), "file_name": "street.jpg"}]
    batch[1]["instances"].gt_classes[:] = 7
    with EventStorage(), pytest.raises(DatasetError, match=r"street\.jpg has an object of class 7"):
        build(tiny()).train()(batch)


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
    assert all(torch.isfinite(x["instances"].pred_boxes.tensor).all() for x in results)
    assert results[0]["instances"].pred_boxes.tensor.dtype == torch.float32


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "TSPRCNN"])
def test_swapped_into_detectron2s_own_config(name: str) -> None:
    """detectron2's FPN detector by its own keys, with both heads exchanged."""
    cfg = get_cfg()
    changes = {
        "DEVICE": "cpu",
        "META_ARCHITECTURE": name,
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
    }
    cfg.merge_from_list([item for key, value in changes.items() for item in (f"MODEL.{key}", value)])
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


def test_the_two_yacs_keys_of_this_project() -> None:
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "TSPRCNN"
    cfg.MODEL.ALIGN_DETR.CONFIG = "TSP/tsp_rcnn_coco_mini"
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.roi_heads.num_classes=5"]
    model = build_model(cfg)
    assert type(model) is TSPRCNN and model.num_classes == 5
    assert model.roi_heads.stages[0].boxes.mlp.layers[-1].out_features == 20
