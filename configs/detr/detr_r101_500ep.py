"""DETR-R101. Published: 43.5 AP."""

from .detr_r50_500ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "./output/detr_r101_500ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
