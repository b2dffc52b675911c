"""Group-DETR-DC5-R101: res5 at stride 16 by dilation."""

from .group_detr_r101_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.res5_dilation = 2
train.output_dir = "./output/group_detr_r101_dc5_50ep"
