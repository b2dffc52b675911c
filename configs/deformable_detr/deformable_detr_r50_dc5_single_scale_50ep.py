"""Deformable-DETR-DC5-R50 with the tokens of res5 alone, at stride 16 by dilation."""

from .deformable_detr_r50_single_scale_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/deformable_detr_r50_dc5_single_scale_50ep"
