"""A small TSP-FCOS from scratch on the built-in digits, on the CPU."""

from ....configs.common.data.digits import dataloader
from ....configs.common.from_scratch import lr_multiplier, optimizer, train
from .common.models.tsp_fcos_small import model

model.head.num_classes = 10

train.max_iter = 5000
train.output_dir = "./output/tsp_fcos_digits"
