"""Training of small detectors from scratch on the CPU: a short run with warm-up, cosine and averaged weights."""

from .optim import AdamW as optimizer
from .schedule import cosine_with_warmup
from .train import train

optimizer.lr = 1e-3
optimizer.params.lr_factors = {}  # nothing is pretrained
lr_multiplier = cosine_with_warmup(epochs=1, warmup_epochs=0.025, final=0.01)

train.max_iter = 3000
train.eval_period = 1000
train.log_period = 50
train.clip_grad.max_norm = 1.0
train.ema.update(enabled=True, decay=0.998)
train.device = "cpu"
