"""Align-DAB-DETR-R50 with the released settings, k = 2 in the intermediate layers."""

from ..common.align import align
from ..dab_detr.dab_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model, copies=2)
train.output_dir = "./output/align_dab_detr_r50_k2_50ep"
