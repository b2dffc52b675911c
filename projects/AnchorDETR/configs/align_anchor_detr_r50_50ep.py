"""Align-Anchor-DETR-R50: the IoU-aware loss, the prime-sample weighting and k = 3 on Anchor-DETR. Not published."""

from ....configs.common.align import align
from .anchor_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_anchor_detr_r50_50ep"
