"""Conditional-DETR-R50: 50 epochs, drop at 40, batch 16. Published: 40.9 AP."""

from ..common.data.coco_detr import dataloader
from ..common.models.conditional_detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_50ep as lr_multiplier
from ..common.train import train

dataloader.train.total_batch_size = 16

train.epochs = 50
train.output_dir = "./output/conditional_detr_r50_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
