"""Align-DAB-DETR-R101. Published: 46.9 AP."""

from ..common.align import align
from ..dab_detr.dab_detr_r101_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dab_detr_r101_50ep"
