"""DETR-DC5-R50: res5 at stride 16 by dilation. Published: 43.3 AP."""

from .detr_r50_500ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/detr_r50_dc5_500ep"
