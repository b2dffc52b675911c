"""Align-DINO-R50, 4 scales, 24 epochs. Published: 51.3 AP."""

from ..common.align import align
from ..dino.dino_r50_4scale_24ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dino_r50_4scale_24ep"
