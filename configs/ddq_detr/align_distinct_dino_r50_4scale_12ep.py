"""Align-DINO-R50, 4 scales, with distinct query selection: 12 epochs. Not published."""

from ..common.align import align
from .distinct_dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_distinct_dino_r50_4scale_12ep"
