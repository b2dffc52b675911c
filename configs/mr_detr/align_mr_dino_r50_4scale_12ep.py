"""Align-DINO-R50, 4 scales, with Mr.DETR's two instructive routes in training: 12 epochs.

Published: 51.4 AP (Zhang et al. 2025, Mr.DETR-Align).
"""

from ..common.align import align
from .mr_dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_mr_dino_r50_4scale_12ep"
