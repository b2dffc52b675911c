"""Raccoons (160 + 40 photos of at most 320 pixels, 1 class) at sizes for training on a CPU."""

from .coco_mini import dataloader

dataloader.train.dataset = "raccoon_train"
dataloader.test.dataset = "raccoon_val"
