"""DINO-R101, 4 scales: 12 epochs. detrex: 50.0 AP."""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "./output/dino_r101_4scale_12ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
