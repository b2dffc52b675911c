"""Deformable-DETR-R50 with the tokens of res5 alone."""

from .deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.out_features = ["res5"]
model.neck.update(in_channels=dict(res5=2048), num_levels=1)
model.encoder.layer.num_levels = 1
model.decoder.layer.num_levels = 1
train.output_dir = "./output/deformable_detr_r50_single_scale_50ep"
