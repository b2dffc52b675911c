"""A small plain DETR from scratch on the built-in digits, on the CPU."""

from ..common.data.digits import dataloader
from ..common.models.detr_small import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_with_warmup
from ..common.train import train

model.head.num_classes = 10

optimizer.lr = 5e-4
optimizer.params.lr_factors = {}  # nothing is pretrained
lr_multiplier = cosine_with_warmup(epochs=1, warmup_epochs=0.03, final=0.01)

train.max_iter = 6000
train.eval_period = 1000
train.log_period = 50
train.ema.update(enabled=True, decay=0.998)
train.device = "cpu"
train.output_dir = "./output/digits_detr"
