"""detectron2's optimizer: SGD with momentum, norms without weight decay."""

from detectron2.config import LazyCall as L
from torch.optim import SGD

from align_detr.engine import get_param_groups

# The trainer sets optimizer.params.model; `optimizer.lr` and `optimizer.weight_decay` are the numbers to override.
sgd = L(SGD)(
    params=L(get_param_groups)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0, lr_factors={}
    ),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
