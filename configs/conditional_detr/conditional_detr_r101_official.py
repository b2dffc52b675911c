"""Conditional-DETR-R101 with the settings of the authors' repository, for its weights. Published: 42.8 AP."""

from .conditional_detr_r50_official import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "./output/conditional_detr_r101_official"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
