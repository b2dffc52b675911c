"""Parts of a run that are built from their nodes of a config."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.data import check_num_classes, check_same_classes
from align_detr.engine.ema import ModelEMA
from align_detr.engine.guard import Guard
from align_detr.engine.summary import describe_model
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


def build_model(node: DictConfig, device: str) -> nn.Module:
    """Build the model on `device`. Raise ConfigError if the node names a class that cannot be imported."""
    try:
        model = instantiate(node).to(device)
    except ImportError as error:
        raise ConfigError(
            f"The config's model names something that cannot be imported ({' '.join(str(error).split())}): in a "
            "config.yaml of an earlier version, name the parts as align_detr.modeling.<part>."
        ) from error
    logger.info(describe_model(model))
    return model


def build_optimizer(node: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer over `model`; leave the node without the model, so that the config can be saved."""
    node.params.model = model
    try:
        return instantiate(node)
    finally:
        node.params.model = None


def build_ema(node: DictConfig, model: nn.Module) -> ModelEMA | None:
    """Build the moving average of the weights of `model`, or return None if it is not enabled."""
    return ModelEMA(model=model, decay=node.decay) if node.enabled else None


def build_guard(options: DictConfig) -> Guard:
    """Build the guard against steps that are not finite from the node `train` of a config."""
    return Guard(Path(options.output_dir), options.on_nonfinite == "skip", options.on_nonfinite_limit)


def build_checkpointer(output_dir: str, model: nn.Module, ema: ModelEMA | None) -> Checkpointer:
    """Build the checkpointer of `model` and, if there are any, of its averaged weights."""
    return Checkpointer(model, output_dir, **({} if ema is None else {"ema": ema}))


def check_classes(model: nn.Module, names: Iterable[str]) -> None:
    """Raise DatasetError unless the data sets have the same classes, and as many as the model.

    A model without `num_classes` passes.
    """
    names = list(dict.fromkeys(names))
    check_same_classes(names)
    num_classes = getattr(model, "num_classes", None)
    if num_classes is None:
        return
    for name in names:
        check_num_classes(num_classes, name)
