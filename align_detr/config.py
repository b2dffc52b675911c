"""The bridge from detectron2's yacs configs: two keys name a LazyConfig file and overrides of it.

    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "DETR"
    cfg.MODEL.ALIGN_DETR.CONFIG = "detr/detr_r50_500ep.py"
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.head.num_classes=3"]
    model = build_model(cfg)

MODEL.PIXEL_MEAN and PIXEL_STD are not read: those of the LazyConfig hold, for RGB images.

detectron2's DefaultTrainer takes optimizer, rates, schedule and clipping from the SOLVER keys, unless its
`build_optimizer` and `build_lr_scheduler` are those of this module (docs/extending.md has the class).

For a detector of a project, import the project first (`import align_detr.projects.anchor_detr`): that registers it.
"""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig
from torch import nn

import align_detr.modeling.meta_arch  # noqa: F401  (enters the detectors into detectron2's registry)
from align_detr.engine import build
from align_detr.engine.rates import build_schedule, scale_rates
from align_detr.engine.run_length import DataSize, RunLength
from align_detr.lazy_config import load_config, model_from_yacs

__all__ = ["add_align_detr_config", "build_lr_scheduler", "build_optimizer", "model_from_yacs"]

logger = logging.getLogger(__name__)


def add_align_detr_config(cfg: CfgNode) -> None:
    """Add the keys MODEL.ALIGN_DETR.CONFIG (a model-zoo name or a path) and MODEL.ALIGN_DETR.OVERRIDES (a list of
    "key=value") to a yacs config, set INPUT.FORMAT to RGB, and register the detectors.
    """
    cfg.MODEL.ALIGN_DETR = CfgNode()
    cfg.MODEL.ALIGN_DETR.CONFIG = ""
    cfg.MODEL.ALIGN_DETR.OVERRIDES = []
    cfg.INPUT.FORMAT = "RGB"


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of the LazyConfig that the yacs keys name, with its clipping of the whole gradient.

    Each step clips. `train.lr_scaling` compares SOLVER.IMS_PER_BATCH to the config's batch.
    """
    lazy = _lazy_config(cfg)
    optimizer = build.build_optimizer(lazy.optimizer, model)
    logger.info("Learning rates are %s.", scale_rates(optimizer, lazy.train, cfg.SOLVER.IMS_PER_BATCH))
    clip = lazy.train.clip_grad
    if clip.max_norm > 0:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]

        def clip_gradient(*_: Any) -> None:
            nn.utils.clip_grad_norm_(parameters, clip.max_norm, clip.norm_type)

        optimizer.register_step_pre_hook(clip_gradient)
        # GradScaler would leave unscaling to a fused optimizer, which does it after the hook
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # set by torch
    return optimizer


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """Build the schedule of the LazyConfig that the yacs keys name, over SOLVER.MAX_ITER iterations."""
    lazy, max_iter = _lazy_config(cfg), cfg.SOLVER.MAX_ITER
    per_epoch = max(1, round(max_iter / lazy.train.epochs))
    length = RunLength(DataSize([], 0), cfg.SOLVER.IMS_PER_BATCH, per_epoch, max_iter)
    return LRMultiplier(optimizer, build_schedule(lazy.lr_multiplier, lazy.train.warmup_epochs, length), max_iter)


def _lazy_config(cfg: Any) -> DictConfig:
    return load_config(cfg.MODEL.ALIGN_DETR.CONFIG, list(cfg.MODEL.ALIGN_DETR.OVERRIDES))
