"""The boxes of a panoptic DETR-R50: DETR's recipe on the boxes around COCO's 133 classes of things and stuff."""

from align_detr.data import DetrMapper

from ....configs.common.schedule import step_500ep as lr_multiplier
from ....configs.detr.detr_r50_500ep import model, optimizer, train
from .common.coco_panoptic import dataloader

model.head.num_classes = 133

dataloader.train.total_batch_size = 64
dataloader.train.mapper["_target_"] = DetrMapper
train.output_dir = "./output/detr_r50_panoptic_boxes_500ep"
