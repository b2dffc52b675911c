"""A small TSP-FCOS from scratch on the built-in digits, on the CPU."""

from ....configs.common.data.digits import dataloader
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedule import cosine_with_warmup
from ....configs.common.train import train
from .common.models.tsp_fcos_small import model

model.head.num_classes = 10

optimizer.lr = 1e-3
optimizer.params.lr_factors = {}  # nothing is pretrained
lr_multiplier = cosine_with_warmup(epochs=1, warmup_epochs=0.02, final=0.01)

train.max_iter = 5000
train.eval_period = 1000
train.log_period = 50
train.clip_grad.max_norm = 1.0
train.ema.update(enabled=True, decay=0.998)
train.device = "cpu"
train.output_dir = "./output/tsp_fcos_digits"
