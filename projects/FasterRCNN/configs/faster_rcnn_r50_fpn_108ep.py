"""Faster R-CNN-R50-FPN for 108 epochs (9x) with random crops and a GIoU loss on boxes. Published: 42.0 AP.

The strong baseline of the tables of DETR and TSP. The published run has no config file. The crops are DETR's;
the weight of the GIoU loss, 10, is this project's choice.
"""

from ....configs.common.data.coco_detr import dataloader as _detr
from .common.schedule import step_108ep as lr_multiplier
from .faster_rcnn_r50_fpn_36ep import dataloader, model, optimizer, train

dataloader.train.mapper.augmentations_with_crop = _detr.train.mapper.augmentations_with_crop
dataloader.train.mapper.augmentations_with_crop[3].short_edge_length = [640, 672, 704, 736, 768, 800]

model.roi_heads.box_predictor.update(box_reg_loss_type="giou", loss_weight=dict(loss_box_reg=10.0))

train.epochs = 108
train.output_dir = "./output/faster_rcnn_r50_fpn_108ep"
