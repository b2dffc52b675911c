"""Conditional-DETR-DC5-R101 with the settings of the authors' repository, for its weights. Published: 45.0 AP."""

from .conditional_detr_r101_official import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/conditional_detr_r101_dc5_official"
