"""Group-DETR-R50 on Conditional-DETR, as in detrex: 50 epochs, drop at 40, batch 16."""

from ..common.data.coco_detr import dataloader
from ..common.models.group_detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_50ep as lr_multiplier
from ..common.train import train

dataloader.train.total_batch_size = 16

train.epochs = 50
train.output_dir = "./output/group_detr_r50_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
