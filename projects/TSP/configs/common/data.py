"""COCO as TSP trains on it: flip, a short side of 640 to 800, batches of similar shapes, no image without objects."""

from .....configs.common.data.coco_detr import dataloader

dataloader.train.mapper.augmentations[1].short_edge_length = [640, 672, 704, 736, 768, 800]
dataloader.train.mapper.augmentations_with_crop = None
dataloader.train.update(total_batch_size=16, aspect_ratio_grouping=True, filter_empty=True)
