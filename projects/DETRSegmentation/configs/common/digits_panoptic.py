"""Digits in photos with masks (2,000 + 200 images of 128x128): 10 things, and the two photos as stuff."""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator

from align_detr.data import MaskMapper
from align_detr.evaluation import PanopticEvaluator

from .....configs.common.data.digits import dataloader

dataloader.train.dataset = "digits_panoptic_train"
dataloader.train.mapper["_target_"] = MaskMapper
dataloader.test.dataset = "digits_panoptic_val"
dataloader.evaluator = [
    L(PanopticEvaluator)(dataset_name="digits_panoptic_val"),
    L(COCOEvaluator)(
        dataset_name="digits_masks_val", tasks=["bbox", "segm"], output_dir="${....train.output_dir}/inference"
    ),
]
