"""Anchor-DETR-R50: 50 epochs, drop at 40, batch 16. Published: 42.1 AP."""

from ....configs.common.data.coco_detr import dataloader
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedule import step_50ep as lr_multiplier
from ....configs.common.train import train
from .common.anchor_detr_r50 import model

dataloader.train.total_batch_size = 16

train.epochs = 50
train.output_dir = "./output/anchor_detr_r50_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
