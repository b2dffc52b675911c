"""Digits in photos (8,000 + 400 images of 128x128, 10 classes), made at first use and never flipped."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco_detr import dataloader

# Reading such an image takes 0.6 ms, less than a worker process needs to hand it over.
dataloader.train.update(dataset="digits_train", total_batch_size=8, num_workers=0)
dataloader.train.mapper.update(augmentations=[], augmentations_with_crop=None)

dataloader.test.update(dataset="digits_val", num_workers=0, batch_size=8)
# The images have this size already; photos that a trained detector is shown have not.
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=[128, 128], max_size=213)]
