"""DN-DETR-R101. Published: 45.2 AP."""

from .dn_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "./output/dn_detr_r101_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
