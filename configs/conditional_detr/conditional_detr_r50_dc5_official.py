"""Conditional-DETR-DC5-R50 with the settings of the authors' repository, for its weights. Published: 43.7 AP."""

from .conditional_detr_r50_official import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/conditional_detr_r50_dc5_official"
