"""SMCA-R50 on three scales: 50 epochs, drop at 40, batch 32. Published: 43.7 AP."""

from ....configs.common.data.coco_detr import dataloader
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedule import step_50ep as lr_multiplier
from ....configs.common.train import train
from .common.smca_multi_scale_r50 import model

dataloader.train.total_batch_size = 32

train.epochs = 50
train.output_dir = "./output/smca_multi_scale_r50_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
