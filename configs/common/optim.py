"""AdamW as DETR uses it: 1e-4, the backbone at a tenth, weight decay 1e-4 on every parameter."""

from detectron2.config import LazyCall as L

from align_detr.engine import adamw, get_param_groups

# The trainer sets optimizer.params.model; `optimizer.lr` and `optimizer.weight_decay` are the numbers to override.
AdamW = L(adamw)(
    params=L(get_param_groups)(
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        lr_factors=dict(backbone=0.1),
    ),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=1e-4,
)
