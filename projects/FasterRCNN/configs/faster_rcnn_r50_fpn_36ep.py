"""Faster R-CNN-R50-FPN, detectron2's 3x recipe. Published: 40.2 AP."""

from ....configs.common.data.coco_detr import dataloader
from ....configs.common.train import train
from .common.faster_rcnn_r50 import model
from .common.optim import sgd as optimizer
from .common.schedule import step_36ep as lr_multiplier

dataloader.train.mapper.augmentations[1].short_edge_length = [640, 672, 704, 736, 768, 800]
dataloader.train.mapper.augmentations_with_crop = None
dataloader.train.update(total_batch_size=16, aspect_ratio_grouping=True, filter_empty=True)

train.epochs = 36
train.clip_grad.max_norm = 0.0
train.output_dir = "./output/faster_rcnn_r50_fpn_36ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
