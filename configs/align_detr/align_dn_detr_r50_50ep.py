"""Align-DN-DETR-R50: k = 3, alpha 0.25, tau 1.5. Not published."""

from ..common.align import align
from ..dn_detr.dn_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_dn_detr_r50_50ep"
