"""The recipes of TSP-RCNN and of its baseline, number by number: expected values are those of the official launch
script and of detectron2, written here by hand.
"""

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr import model_zoo
from align_detr.modeling.losses import GIoULoss, IABCELoss
from align_detr.modeling.matcher import GIoUCost, SoftmaxCost
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.losses import BackgroundFocalLoss, DeltaL1Loss, ProposalOwnerMatcher

SIDES = [640, 672, 704, 736, 768, 800]
BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
# config: depth, epochs, whether half of the images are cropped
VARIANTS = {
    "TSP/tsp_rcnn_r50_36ep": (50, 36, False),
    "TSP/tsp_rcnn_r101_36ep": (101, 36, False),
    "TSP/tsp_rcnn_r50_96ep": (50, 96, True),
    "TSP/tsp_rcnn_r101_96ep": (101, 96, True),
    "TSP/align_tsp_rcnn_r50_36ep": (50, 36, False),
    "FasterRCNN/faster_rcnn_r50_fpn_36ep": (50, 36, False),
    "FasterRCNN/faster_rcnn_r50_fpn_108ep": (50, 108, True),
}


@pytest.fixture(scope="module")
def model() -> TSPRCNN:
    return instantiate(model_zoo.get_config("TSP/tsp_rcnn_r50_36ep").model)


def test_proposals(model: TSPRCNN) -> None:
    rpn = model.proposal_generator
    assert rpn.in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert list(rpn.anchor_generator.num_anchors) == [9] * 5
    assert rpn.pre_nms_topk == {True: 2000, False: 1000} and rpn.post_nms_topk == {True: 700, False: 700}
    assert (rpn.batch_size_per_image, rpn.positive_fraction, rpn.nms_thresh) == (256, 0.5, 0.7)
    assert rpn.loss_weight == {"loss_rpn_cls": 1.0, "loss_rpn_loc": 2.0}
    assert rpn.anchor_matcher.thresholds[1:-1] == [0.3, 0.7] and rpn.anchor_matcher.labels == [0, -1, 1]
    assert rpn.box_reg_loss_type == "smooth_l1" and rpn.smooth_l1_beta == 0
    for predictor in (rpn.rpn_head.objectness_logits, rpn.rpn_head.anchor_deltas):
        assert predictor.weight.std().item() == pytest.approx(0.01, rel=0.1) and not predictor.bias.any()
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in rpn.rpn_head.objectness_tower.norms[0])


def test_region_heads(model: TSPRCNN) -> None:
    heads = model.roi_heads
    assert heads.in_features == ["p2", "p3", "p4", "p5"] and heads.num_classes == model.num_classes == 80
    pooler = heads.pooler
    assert (pooler.output_size, pooler.min_level, pooler.max_level) == ((7, 7), 2, 5)
    assert (pooler.canonical_level, pooler.canonical_box_size) == (4, 224)
    assert all(p.aligned and p.sampling_ratio == 0 for p in pooler.level_poolers)
    sampler = heads.sampler
    assert (sampler.iou_threshold, sampler.batch_size_per_image, sampler.positive_fraction) == (0.5, 700, 0.25)
    assert sampler.keep_range == (0.7, 1.0)
    post = heads.postprocess
    assert (post.nms_threshold, post.score_threshold, post.num_detections) == (0.7, 0.0, 100)
    (stage,) = heads.stages
    assert len(stage.transformer.encoder.layers) == 6 and type(stage.transformer.encoder.norm) is nn.LayerNorm
    for layer in stage.transformer.encoder.layers:
        assert layer.ffn.linear1.weight.shape == (2048, 512) and layer.self_attn.num_heads == 8
        assert layer.dropout.p == layer.ffn.dropout.p == layer.self_attn.dropout == 0.1
    assert stage.boxes.coder.weights == (10, 10, 5, 5)
    assert stage.boxes.mlp.layers[-1].weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert stage.classifier.linear.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_losses(model: TSPRCNN) -> None:
    heads = model.roi_heads
    assert {type(c): c.weight for c in heads.criterion.matcher.costs} == {SoftmaxCost: 1, GIoUCost: 2}
    (classes,) = heads.criterion.losses
    assert type(classes) is BackgroundFocalLoss
    assert (classes.weight, classes.background_weight, classes.gamma) == (1, 0.1, 2)
    assert {type(x): x.weight for x in heads.box_criterion.losses} == {DeltaL1Loss: 1, GIoULoss: 2}
    assert type(heads.box_criterion.matcher) is ProposalOwnerMatcher


def test_the_aligned_version() -> None:
    model = model_zoo.get_config("TSP/align_tsp_rcnn_r50_36ep").model
    model.roi_heads.num_classes = 7
    heads = instantiate(model).roi_heads
    assert [type(x) for x in heads.criterion.losses] == [IABCELoss]
    assert type(heads.criterion.weighting) is PrimeSampleWeighting and heads.criterion.matcher.copies == {"main": 3}
    classifier = heads.stages[0].classifier.linear
    assert classifier.out_features == 7
    assert torch.allclose(classifier.bias.sigmoid(), torch.tensor(0.01))
    assert type(heads.box_criterion.matcher) is ProposalOwnerMatcher, "boxes still learn from all foreground"


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    depth, epochs, crop = VARIANTS[name]
    cfg = model_zoo.get_config(name)
    bottom_up = instantiate(cfg.model.backbone.bottom_up)
    assert [len(stage) for stage in bottom_up.stages] == BLOCKS[depth]
    assert bottom_up.stages[1][0].conv1.stride == (2, 2), "the MSRA form strides in the 1x1 convolution"
    assert int(cfg.train.epochs) == epochs and cfg.train.init_checkpoint.endswith(f"MSRA/R-{depth}.pkl")
    assert cfg.optimizer.lr == 0.02 and cfg.optimizer.weight_decay == 1e-4
    assert cfg.train.clip_grad.max_norm == 0 and cfg.dataloader.train.total_batch_size == 16
    mapper = cfg.dataloader.train.mapper
    assert mapper.augmentations[1].short_edge_length == SIDES and mapper.image_format == "RGB"
    assert (mapper.augmentations_with_crop is not None) == crop
    if crop:
        assert mapper.augmentations_with_crop[3].short_edge_length == SIDES


@pytest.mark.parametrize(
    ("name", "iterations", "drops"),
    [
        ("TSP/tsp_rcnn_r50_36ep", 270_000, (180_000, 240_000)),
        ("TSP/tsp_rcnn_r50_96ep", 720_000, (640_000, 690_000)),
        ("FasterRCNN/faster_rcnn_r50_fpn_36ep", 270_000, (210_000, 250_000)),
        ("FasterRCNN/faster_rcnn_r50_fpn_108ep", 810_000, (750_000, 790_000)),
    ],
)
def test_schedules(name: str, iterations: int, drops: tuple[int, int]) -> None:
    rate = instantiate(model_zoo.get_config(name).lr_multiplier)
    expected = {0: 0.001, 500: 0.5005, 1001: 1.0, drops[0] - 100: 1.0, drops[0] + 100: 0.1, drops[1] + 100: 0.01}
    for iteration, value in expected.items():
        assert rate(iteration / iterations) == pytest.approx(value, rel=1e-3), iteration
