"""Conditional-DETR-DC5-R50: res5 at stride 16 by dilation. Published: 43.8 AP."""

from .conditional_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/conditional_detr_r50_dc5_50ep"
