"""Training: trainer, optimizer, precision, averages, hooks, writers, processes. Configs import from here."""

from align_detr.engine.flat_cosine import FlatCosine, flat_cosine_with_warmup
from align_detr.engine.optimizer import adamw, get_param_groups

__all__ = ["FlatCosine", "adamw", "flat_cosine_with_warmup", "get_param_groups"]
