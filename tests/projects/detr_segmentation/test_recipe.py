"""The recipes of segmentation, number by number."""

import pytest
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator

from align_detr.data import DetrMapper, MaskMapper
from align_detr.engine.freezing import freeze
from align_detr.evaluation import PanopticEvaluator
from align_detr.modeling import DETR, GIoULoss, IABCELoss, L1Loss, SoftmaxCrossEntropy
from align_detr.projects.detr_segmentation import DiceLoss, MaskFocalLoss, SegmentationDeformableDETR, SegmentationDETR
from support.shrink import config, small_model


def test_masks_on_a_frozen_detector() -> None:
    cfg = config("DETRSegmentation/detr_r50_panoptic_25ep.py")
    assert cfg.train.epochs == 25 and cfg.optimizer.lr == 1e-4 and cfg.dataloader.train.total_batch_size == 16
    rate = instantiate(cfg.lr_multiplier)
    assert rate(0.59) == 1.0 and rate(0.61) == pytest.approx(0.1)
    assert cfg.model._target_ is SegmentationDETR and cfg.model.head.num_classes == 133
    losses = [instantiate(loss) for loss in cfg.model.criterion.losses]
    assert [(type(x), x.weight) for x in losses] == [
        *((SoftmaxCrossEntropy, 1.0), (L1Loss, 5.0), (GIoULoss, 2.0)),
        *((MaskFocalLoss, 1.0), (DiceLoss, 1.0)),
    ]
    assert (losses[3].alpha, losses[3].gamma) == (0.25, 2.0)
    merge = instantiate(cfg.model.panoptic)
    assert (merge.num_things, merge.score_threshold, merge.least_area) == (80, 0.85, 5)
    model = instantiate(small_model("DETRSegmentation/detr_r50_panoptic_25ep.py"))
    freeze(model, list(cfg.train.freeze))
    assert all(p.requires_grad == name.startswith("masks.") for name, p in model.named_parameters())


@pytest.mark.parametrize("name", ["detr_r50", "detr_r101", "detr_r50_dc5"])
def test_variants_differ_in_the_backbone(name: str) -> None:
    cfg = config(f"DETRSegmentation/{name}_panoptic_25ep.py")
    backbone = cfg.model.backbone
    assert backbone.depth == (101 if "r101" in name else 50)
    assert backbone.get("res5_dilation", 1) == (2 if "dc5" in name else 1)
    assert list(backbone.out_features) == ["res2", "res3", "res4", "res5"]
    assert cfg.train.init_checkpoint == f"./output/{name}_panoptic_boxes_500ep/weights.pth"


def test_boxes_first() -> None:
    """DETR's recipe with other data: no masks are read."""
    cfg, parent = config("DETRSegmentation/detr_r50_panoptic_boxes_500ep.py"), config("detr/detr_r50_500ep.py")
    assert cfg.model._target_ is DETR and cfg.model.head.num_classes == 133
    assert cfg.dataloader.train.total_batch_size == 64 and cfg.train.epochs == 500
    assert cfg.dataloader.train.mapper._target_ is DetrMapper
    assert cfg.dataloader.train.mapper.augmentations == parent.dataloader.train.mapper.augmentations
    assert cfg.optimizer == parent.optimizer


def test_align_dino_keeps_its_recipe() -> None:
    cfg = config("DETRSegmentation/align_dino_r50_4scale_segmentation_12ep.py")
    parent = config("align_detr/align_dino_r50_4scale_12ep.py")
    assert cfg.model._target_ is SegmentationDeformableDETR and cfg.model.masks.level == 2  # stride 32
    losses = [instantiate(loss) for loss in cfg.model.criterion.losses]
    assert type(losses[0]) is IABCELoss and [type(x) for x in losses[3:]] == [MaskFocalLoss, DiceLoss]
    assert cfg.model.criterion.matcher == parent.model.criterion.matcher
    assert cfg.model.criterion.weighting == parent.model.criterion.weighting
    assert cfg.optimizer == parent.optimizer and cfg.train.epochs == 12
    assert cfg.dataloader.train.mapper._target_ is MaskMapper
    assert cfg.dataloader.evaluator._target_ is COCOEvaluator


def test_digits() -> None:
    cfg = config("DETRSegmentation/digits_panoptic.py")
    assert cfg.model.panoptic.num_things == 10 and cfg.model.head.num_classes == 12
    assert [each._target_ for each in cfg.dataloader.evaluator] == [PanopticEvaluator, COCOEvaluator]
    assert cfg.train.device == "cpu"
