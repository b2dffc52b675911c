"""A small DETR on blood cells under a microscope (3 classes): the detector of `coco_mini.py` on other photos."""

from ..common.data.bccd import dataloader
from .coco_mini import lr_multiplier, model, optimizer, train

dataloader.train.total_batch_size = 4
model.head.num_classes = 3
train.output_dir = "./output/quickstart_bccd"
