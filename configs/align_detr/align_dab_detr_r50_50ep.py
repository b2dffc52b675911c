"""Align-DAB-DETR-R50: k = 3, alpha 0.25, tau 1.5. Published: 46.0 AP."""

from ..common.align import align
from ..dab_detr.dab_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dab_detr_r50_50ep"
