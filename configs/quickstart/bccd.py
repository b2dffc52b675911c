"""A small DETR on blood cells under a microscope (3 classes): the detector of `coco_mini.py` on other photos.

Needs: the blood cells and the MobileNetV2, both in `datasets/` of a checkout (364 photos, 4.4 MB of weights); with an
installed package, the environment variable `ALIGN_DETR_DATA` names that folder. Nothing is downloaded.
"""

from ..common.data.bccd import dataloader
from .coco_mini import lr_multiplier, model, optimizer, train

dataloader.train.total_batch_size = 4
model.head.num_classes = 3
train.output_dir = "./output/quickstart_bccd"
