"""Instance segmentation by Align-DINO-R50: its 12 epochs on boxes and masks together. No figures are published."""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator

from align_detr.data import MaskMapper
from align_detr.projects.detr_segmentation import SegmentationDeformableDETR

from ....configs.align_detr.align_dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train
from .common.masks import add_masks

model["_target_"] = SegmentationDeformableDETR
add_masks(model, in_channels=dict(res4=1024, res3=512, res2=256), level=2)

dataloader.train.mapper["_target_"] = MaskMapper
dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset}", tasks=["bbox", "segm"], output_dir="${...train.output_dir}/inference"
)

train.output_dir = "./output/align_dino_r50_4scale_segmentation_12ep"
