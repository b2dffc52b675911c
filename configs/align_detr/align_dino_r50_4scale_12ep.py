"""Align-DINO-R50, 4 scales, 12 epochs: k = 3, alpha 0.25, tau 1.5. Published: 50.2 AP."""

from ..common.align import align
from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dino_r50_4scale_12ep"
