"""Trained models: the weights of a checkpoint in the model of a config."""

import logging

from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.data.names import dataset_names
from align_detr.engine.build import build_checkpointer, build_ema, build_model, check_classes
from align_detr.engine.class_names import check_trained_classes
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


def load_trained(cfg: DictConfig, *, checkpoint: str = "") -> tuple[nn.Module, int]:
    """Build the model with the weights of `checkpoint`, else the newest of the output folder, else of
    `train.init_checkpoint`; return it with the number of iterations it was trained for (0: not known).

    That order because a config's init_checkpoint is often a backbone to start training from. With `train.ema.enabled`
    the weights are the averaged ones if the checkpoint has them. Raise ConfigError if there is no checkpoint or if it
    lacks parameters of the model or has them in other shapes, and DatasetError, before anything is loaded, if the model
    has not as many classes as the test data; also if the checkpoint was trained for others.
    """
    options = cfg.train
    model = build_model(cfg.model, options.device)
    names = dataset_names(cfg.dataloader.get("test", {}))
    check_classes(model, names)
    ema = build_ema(options.ema, model)
    checkpointer = build_checkpointer(options.output_dir, model, ema)
    path = checkpoint or checkpointer.last_checkpoint() or options.init_checkpoint
    if not path:
        raise ConfigError(
            f"There is nothing to evaluate, as {options.output_dir} has no checkpoint and train.init_checkpoint is "
            "empty: set train.init_checkpoint, or train.output_dir to the folder of a run."
        )
    state = checkpointer.load(path)
    _check_complete(checkpointer, path)
    check_trained_classes(state, path, names)
    iteration = state.get("trainer", {}).get("iteration", state.get("iteration", -1)) + 1
    if ema is not None and ema.num_updates > 0:
        logger.info("Loaded the averaged weights of %s.", path)
        return ema.module, iteration
    if ema is not None:
        logger.warning("%s has no averaged weights: taking its plain ones although train.ema.enabled is set.", path)
    logger.info("Loaded the weights of %s.", path)
    return model, iteration


def _check_complete(checkpointer: Checkpointer, path: str) -> None:
    """Raise ConfigError unless the file loaded last had every parameter of the model, in its shape."""
    missing, shapes = checkpointer.missing_parameters, checkpointer.wrong_shapes
    misfits = [name for name in missing if name in shapes]
    if misfits:
        name = misfits[0]
        given, wanted = shapes[name]
        raise ConfigError(
            f"{path} has '{name}' in another shape than the model's, {given} instead of {wanted} "
            f"({len(misfits)} such parameters), and cannot be evaluated: use the config that it was trained with."
        )
    if missing:
        raise ConfigError(
            f"{path} lacks {len(missing)} of the model's parameters, such as '{missing[0]}', and cannot be evaluated: "
            "set train.init_checkpoint to a whole model."
        )
