"""A small Align-DINO from scratch on the built-in digits, on the CPU: the detector that comes with the package.

Needs: nothing. The pictures are drawn from scikit-learn's digits and photos at the first use, without network, and kept
in the cache folder (`ALIGN_DETR_CACHE`, default `~/.cache/align_detr`).
"""

from ..common.align import align
from ..common.data.digits import dataloader
from ..common.from_scratch import lr_multiplier, optimizer, train
from ..common.models.dino_small import model

model.head.num_classes = 10
align(model)

# Under a norm layer, the effective step of a convolution shrinks with its weights' size, and detectron2 initialises
# large weights: hence the higher rate of the backbone.
optimizer.lr = 1.5e-3
optimizer.params.lr_factors = dict(backbone=3.0)

train.max_iter = 3200
train.eval_period = 1600
train.output_dir = "./output/demo_digits"
