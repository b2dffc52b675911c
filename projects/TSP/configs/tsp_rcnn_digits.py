"""A small TSP-RCNN from scratch on the built-in digits, on the CPU."""

from ....configs.common.data.digits import dataloader
from ....configs.common.from_scratch import lr_multiplier, optimizer, train
from .common.models.tsp_rcnn_small import model

model.roi_heads.num_classes = 10

train.output_dir = "./output/tsp_rcnn_digits"
