"""Blood cells under a microscope (205 + 87 photos of 640x480, 3 classes) at sizes that a CPU can train with."""

from .coco_mini import dataloader

dataloader.train.dataset = "bccd_train"
dataloader.test.dataset = "bccd_val"
