"""Blood cells under a microscope (205 + 87 photos of 640x480, 3 classes) at sizes for training on a CPU."""

from .coco_mini import dataloader

dataloader.train.dataset = "bccd_train"
dataloader.test.dataset = "bccd_val"
