"""COCO 2017 with panoptic annotations: DETR's augmentation, masks of things and stuff, PQ, and AP of masks and boxes.

Below DETECTRON2_DATASETS: coco/annotations/panoptic_{train,val}2017.json, coco/panoptic_{train,val}2017/, and the
images.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator

from align_detr.data import MaskMapper
from align_detr.evaluation import PanopticEvaluator

from .....configs.common.data.coco_detr import dataloader

dataloader.train.update(dataset="coco_panoptic_train", total_batch_size=16)
dataloader.train.mapper["_target_"] = MaskMapper
dataloader.test.dataset = "coco_panoptic_val"
dataloader.evaluator = [
    L(PanopticEvaluator)(dataset_name="coco_panoptic_val"),
    L(COCOEvaluator)(
        dataset_name="coco_2017_val", tasks=["bbox", "segm"], output_dir="${....train.output_dir}/inference"
    ),
]
