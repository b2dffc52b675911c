"""A small DAB-DETR from scratch on the built-in digits, on the CPU."""

from ..common.models.dab_detr_small import model
from .digits import dataloader, lr_multiplier, optimizer, train

model.head.num_classes = 10

optimizer.lr = 5e-4
train.max_iter = 4500
train.output_dir = "./output/digits_dab_detr"
