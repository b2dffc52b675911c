"""Align-DAB-DETR-DC5-R50. Published: 48.3 AP."""

from ..common.align import align
from ..dab_detr.dab_detr_r50_dc5_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dab_detr_r50_dc5_50ep"
