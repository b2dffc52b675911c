"""Align-DINO-R50 with the released settings, k = 2 in encoder and intermediate layers, 24 epochs. Released: 51.4 AP."""

from ..common.align import align
from ..dino.dino_r50_4scale_24ep import dataloader, lr_multiplier, model, optimizer, train

align(model, copies=2)
train.output_dir = "./output/align_dino_r50_4scale_k2_24ep"
