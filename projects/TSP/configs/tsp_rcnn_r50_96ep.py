"""TSP-RCNN-R50 for 96 epochs with random crops. Published: 45.0 AP.

The official repository has neither this schedule nor the crop's sizes: the drops are those of eight times detectron2's
1x schedule, and the crop is DETR's.
"""

from ....configs.common.data.coco_detr import dataloader as _detr
from .common.schedule import step_96ep as lr_multiplier
from .tsp_rcnn_r50_36ep import dataloader, model, optimizer, train

dataloader.train.mapper.augmentations_with_crop = _detr.train.mapper.augmentations_with_crop
dataloader.train.mapper.augmentations_with_crop[3].short_edge_length = [640, 672, 704, 736, 768, 800]
train.epochs = 96
train.output_dir = "./output/tsp_rcnn_r50_96ep"
