"""Align-SMCA-R50: the IoU-aware loss, the prime-sample weighting and k = 3 on SMCA. Not published."""

from ....configs.common.align import align
from .smca_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_smca_r50_50ep"
