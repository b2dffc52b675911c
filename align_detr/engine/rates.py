"""Learning rates of a run: their scaling with the batch, and the warm-up before a schedule."""

import logging
import math
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.solver import WarmupParamScheduler
from omegaconf import DictConfig, OmegaConf

from align_detr.engine.run_length import RunLength
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

_RULES = {"none": lambda ratio: 1.0, "linear": lambda ratio: ratio, "sqrt": math.sqrt}
WARMUP_FACTOR = 0.001  # of the rate, in the first iteration


def scale_rates(optimizer: torch.optim.Optimizer, options: DictConfig, total_batch: int) -> str:
    """Multiply the rates of all groups by the factor of `train.lr_scaling`; return the rule in force for the log.

    The ratio r is that of the images per batch over all processes, those of accumulated parts included, to
    `train.base_batch_size`: "linear" multiplies by r (Goyal et al. 2017), "sqrt" by its root, which suits Adam
    (Malladi et al. 2022), "none" by 1. Raise ConfigError for another rule.
    """
    rule, base = options.lr_scaling or "none", options.base_batch_size or total_batch
    if rule not in _RULES:
        raise ConfigError(f"train.lr_scaling={rule} is unknown: use one of {', '.join(_RULES)}.")
    factor = _RULES[rule](total_batch / base)
    for group in optimizer.param_groups:
        group["lr"] *= factor
    if rule == "none" and base == total_batch:
        return "not scaled: the batch is that of the config"
    if rule == "none":
        return f"not scaled: train.lr_scaling=none, though the batch is {total_batch} and the config's {base}"
    return f"scaled by {factor:.3g}: train.lr_scaling={rule}, batch {total_batch} over {base}"


def build_schedule(node: DictConfig, warmup_epochs: float | None, length: RunLength) -> Any:
    """Build the schedule of a config, with a linear warm-up of `warmup_epochs` in front (None: as the config has it).

    A warm-up that the config has is replaced, or left out if `warmup_epochs` is 0. Raise ConfigError for a warm-up that
    is negative or takes the whole run.
    """
    if warmup_epochs is None:
        return instantiate(node)
    if not 0 <= warmup_epochs < length.epochs:
        raise ConfigError(
            f"train.warmup_epochs={warmup_epochs} does not fit into a run of {length.epochs:g} epochs: set it to at "
            "least 0 and less than that."
        )
    if _is_warmup(node):
        node = node.scheduler
    if warmup_epochs == 0:
        return instantiate(node)
    share, iterations = warmup_epochs / length.epochs, warmup_epochs * length.iterations_per_epoch
    logger.info("Warm-up: %g epochs = %.0f iterations, from %g of the rate.", warmup_epochs, iterations, WARMUP_FACTOR)
    return instantiate(
        L(WarmupParamScheduler)(
            scheduler=node, warmup_factor=WARMUP_FACTOR, warmup_length=share, warmup_method="linear"
        )
    )


def _is_warmup(node: DictConfig) -> bool:
    target = OmegaConf.select(node, "_target_")
    return target is WarmupParamScheduler or str(target).endswith("WarmupParamScheduler")
