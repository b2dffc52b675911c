"""Masks on a frozen panoptic DETR-R50: 25 epochs, drop at 15 (DETR, section 4.4). Published: 43.4 PQ, 31.1 mask AP.

train.init_checkpoint is the detector of detr_r50_panoptic_boxes_500ep.py.
"""

from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedule import multi_step
from ....configs.common.train import train
from .common.coco_panoptic import dataloader
from .common.detr_r50_panoptic import model

lr_multiplier = multi_step(25, [15])

train.epochs = 25
train.freeze = ["backbone", "neck", "encoder", "queries", "decoder", "head.class_embed", "head.bbox_embed"]
train.init_checkpoint = "./output/detr_r50_panoptic_boxes_500ep/weights.pth"
train.output_dir = "./output/detr_r50_panoptic_25ep"
