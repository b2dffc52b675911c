"""An Align-DINO from scratch on the built-in digits, on the CPU: what `make demo` trains."""

from ..common.align import align
from ..common.data.digits import dataloader
from ..common.models.dino_small import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_with_warmup
from ..common.train import train

model.head.num_classes = 10
align(model)

optimizer.lr = 1e-3
optimizer.params.lr_factors = {}  # nothing is pretrained
lr_multiplier = cosine_with_warmup(epochs=1, warmup_epochs=0.025, final=0.01)

train.max_iter = 4000
train.eval_period = 1000
train.log_period = 50
train.clip_grad.max_norm = 1.0
train.ema.update(enabled=True, decay=0.998)
train.device = "cpu"
train.output_dir = "./output/demo"
