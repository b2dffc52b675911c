"""Align-DINO with Swin-L, 4 scales, 12 epochs. Not published."""

from ..common.align import align
from ..dino.dino_swin_large_384_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dino_swin_large_384_4scale_12ep"
