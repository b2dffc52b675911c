"""A model with what changes its weights."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import IterationTimer
from omegaconf import DictConfig
from torch import nn

from align_detr.engine.attention_sparsity import AttentionSparsity, attention_sparsity
from align_detr.engine.build import build_ema, build_model, build_optimizer, check_classes
from align_detr.engine.capacity import check_capacity
from align_detr.engine.ema import ModelEMA
from align_detr.engine.freezing import FixedNorms, freeze
from align_detr.engine.hooks import GroupLRScheduler, UpdateEMA, group_rates
from align_detr.engine.plan import RunPlan
from align_detr.engine.progress import TrainingProgress, training_progress
from align_detr.engine.rates import build_schedule, scale_rates
from align_detr.engine.recomputation import checkpoint_activations
from align_detr.engine.summary import describe_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learner:
    """A model, its optimizer, schedule and averages (None: none), its batch norms that are fixed, the record of its
    cross-attention (None: none), and what tells its parts how far training is (None: none asks).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    ema: ModelEMA | None
    fixed_norms: list[nn.Module]
    sparsity: AttentionSparsity | None
    progress: TrainingProgress | None

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated: the average if there is one."""
        return self.model if self.ema is None else self.ema.module

    def start_average(self) -> None:
        """Begin the average with the weights as they are, unless a checkpoint has filled it."""
        if self.ema is not None and self.ema.num_updates == 0:
            self.ema.reset()

    def hooks(self) -> list[HookBase | None]:
        """Return the hooks of a step: time, rates, fixed batch norms, averages, cross-attention, progress."""
        averaging = None if self.ema is None else UpdateEMA(ema=self.ema)
        schedule, norms = GroupLRScheduler(scheduler=self.schedule), FixedNorms(norms=self.fixed_norms)
        return [IterationTimer(), schedule, norms, averaging, self.sparsity, self.progress]


def build_learner(cfg: DictConfig, plan: RunPlan) -> Learner:
    """Build model, optimizer, schedule and averages of a run, and log its data, batch, length and rates.

    Raise ConfigError for parts that do not fit each other, DatasetError for data of other classes than the model's.
    """
    options, length = cfg.train, plan.length
    model = build_model(cfg.model, options.device)
    check_classes(model, plan.dataset_names)
    check_capacity(cfg.model, plan.dataset_names)
    fixed_norms = freeze(model, options.freeze)
    sparsity = attention_sparsity(model, options.attention_sparsity)
    checkpoint_activations(model, options.checkpoint_activations)
    optimizer = build_optimizer(cfg.optimizer, model)
    scaling = scale_rates(optimizer, options, length.total_batch)
    schedule = build_schedule(cfg.lr_multiplier, options.warmup_epochs, length)
    ema = build_ema(options.ema, model)
    progress = training_progress([model] if ema is None else [model, ema.module], length.max_iter)
    for line in describe_run(length=length, test_data=plan.test_data, rates=group_rates(optimizer), scaling=scaling):
        logger.info(line)
    return Learner(model, optimizer, schedule, ema, fixed_norms, sparsity, progress)
