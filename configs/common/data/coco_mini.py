"""A small real subset of COCO (96 + 48 photos, 80 classes) at sizes for training on a CPU."""

from .coco_detr import dataloader

dataloader.train.dataset = "coco_mini_train"
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 2
_sides = [256, 288, 320]
_plain, _crop = dataloader.train.mapper.augmentations, dataloader.train.mapper.augmentations_with_crop
_plain[1].update(short_edge_length=_sides, max_size=480)
_crop[1].short_edge_length = [240, 280, 320]
_crop[2].crop_size = [200, 320]
_crop[3].update(short_edge_length=_sides, max_size=480)

dataloader.test.dataset = "coco_mini_val"
dataloader.test.num_workers = 2
dataloader.test.mapper.augmentations[0].update(short_edge_length=[320, 320], max_size=480)
