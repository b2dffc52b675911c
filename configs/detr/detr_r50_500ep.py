"""DETR-R50, the official recipe: 500 epochs, drop at 400, batch 64. Published: 42.0 AP."""

from ..common.data.coco_detr import dataloader
from ..common.models.detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_500ep as lr_multiplier
from ..common.train import train

train.epochs = 500
train.output_dir = "./output/detr_r50_500ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
