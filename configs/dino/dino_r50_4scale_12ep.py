"""DINO-R50, 4 scales: 12 epochs, drop at 11, batch 16. Published: 49.0 AP. detrex: 49.2."""

from ..common.data.coco_detr import dataloader
from ..common.models.dino_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_12ep as lr_multiplier
from ..common.train import train

dataloader.train.total_batch_size = 16

train.epochs = 12
train.output_dir = "./output/dino_r50_4scale_12ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
