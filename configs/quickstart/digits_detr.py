"""A small plain DETR from scratch on the built-in digits, on the CPU.

Needs: nothing. The pictures are drawn from scikit-learn's digits and photos at the first use, without network, and kept
in the cache folder (`ALIGN_DETR_CACHE`, default `~/.cache/align_detr`).
"""

from ..common.data.digits import dataloader
from ..common.from_scratch import lr_multiplier, optimizer, train
from ..common.models.detr_small import model

model.head.num_classes = 10

optimizer.lr = 5e-4

train.max_iter = 6000
train.clip_grad.max_norm = 0.1
train.output_dir = "./output/digits_detr"
