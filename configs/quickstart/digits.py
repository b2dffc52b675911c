"""An Align-DINO from scratch on the built-in digits, on the CPU: what `make demo` trains."""

from ..common.align import align
from ..common.data.digits import dataloader
from ..common.from_scratch import lr_multiplier, optimizer, train
from ..common.models.dino_small import model

model.head.num_classes = 10
align(model)

# Normalised convolutions turn the slower the larger they are, and detectron2's blocks start them large.
optimizer.lr = 1.5e-3
optimizer.params.lr_factors = dict(backbone=3.0)

train.max_iter = 3200
train.eval_period = 1600
train.output_dir = "./output/demo"
