"""Align-DETR on Deformable-DETR-R50; class weight 2 as in Deformable-DETR. Not published."""

from ..common.align import align
from ..deformable_detr.deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_deformable_detr_r50_50ep"
