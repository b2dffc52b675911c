"""Trained models: the weights of a checkpoint in the model of a config."""

import logging

from omegaconf import DictConfig
from torch import nn

from align_detr.data.datasets import known_classes
from align_detr.data.names import dataset_names
from align_detr.engine.build import build_checkpointer, build_model, check_classes
from align_detr.engine.class_names import check_trained_classes
from align_detr.engine.progress import tell_progress
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


def load_trained(cfg: DictConfig, *, checkpoint: str = "", averaged: bool = True) -> tuple[nn.Module, int]:
    """Build the model with the weights of `checkpoint`, else the newest of the output folder, else of
    `train.init_checkpoint`; return it, in evaluation mode, with the number of iterations it was trained for (0: not
    known).

    That order because a config's init_checkpoint is often a backbone to start training from. The weights are the
    averaged ones if the checkpoint has them; with `averaged=False`, or `train.init_averaged=False`, the plain ones.
    Rows of classes are taken over by name. Parts that change in the course of training are as at its end. Raise
    ConfigError if there is no checkpoint or if it lacks tensors of the model or has them in other shapes, and
    DatasetError, before anything is loaded, if the model has not as many classes as the test data; also if the
    checkpoint was trained for others.
    """
    options = cfg.train
    model = build_model(cfg.model, options.device)
    names = dataset_names(cfg.dataloader.get("test", {}))
    check_classes(model, names)
    checkpointer = build_checkpointer(options.output_dir, model, None)
    of_a_run = checkpoint or checkpointer.last_checkpoint()
    path = of_a_run or options.init_checkpoint
    if not path:
        raise ConfigError(
            f"There is nothing to evaluate, as {options.output_dir} has no checkpoint and train.init_checkpoint is "
            "empty: set train.init_checkpoint, or train.output_dir to the folder of a run."
        )
    averaged = averaged and options.get("init_averaged", True)
    weights = checkpointer.read(path, averaged=averaged)
    check_trained_classes(weights.class_names, path, names)
    try:
        checkpointer.load_weights(weights, class_names=known_classes(names[0]) if names else None, strict=True)
    except ConfigError as error:
        if of_a_run:
            raise
        raise ConfigError(
            f"{options.output_dir} has no checkpoint to evaluate, and train.init_checkpoint of the config is only a "
            f"start for training ({str(error).partition(':')[0]}): set train.output_dir to the folder of a run, or "
            "pass train.init_checkpoint with a whole model."
        ) from error
    if averaged and options.ema.enabled and not weights.averaged:
        logger.warning("%s has no averaged weights: taking its plain ones although train.ema.enabled is set.", path)
    logger.info("Loaded the %sweights of %s.", "averaged " if weights.averaged else "", path)
    tell_progress(model, 1.0)
    return model.eval(), weights.iteration or 0
