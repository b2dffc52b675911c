"""TSP's optimizer: SGD at `lr` for everything but the encoder, AdamW at `transformer_lr` for the encoder."""

from detectron2.config import LazyCall as L

from align_detr.projects.tsp import HybridOptimizer, get_hybrid_groups

# The trainer sets optimizer.params.model; the numbers to override are those of `optimizer`.
hybrid = L(HybridOptimizer)(
    params=L(get_hybrid_groups)(
        lr="${..lr}",
        transformer_lr="${..transformer_lr}",
        transformer=["encoder"],
        weight_decay="${..weight_decay}",
        weight_decay_norm=0.0,
    ),
    lr=0.01,
    transformer_lr=1e-4,
    momentum=0.9,
    betas=(0.9, 0.999),
    weight_decay=1e-4,
    clip_max_norm=0.01,
)
