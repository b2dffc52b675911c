"""Conditional-DETR-R50, aligned; class weight 2 as in Conditional-DETR. Not published."""

from ..common.align import align
from ..conditional_detr.conditional_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_conditional_detr_r50_50ep"
