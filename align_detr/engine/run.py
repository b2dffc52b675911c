"""Training and evaluation of what a config describes."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.data import check_num_classes, count_images
from align_detr.engine.distributed import check_device, wrap_ddp
from align_detr.engine.ema import ModelEMA
from align_detr.engine.hooks import EvaluationHook, GroupLRScheduler, UpdateEMA, group_rates
from align_detr.engine.precision import Precision
from align_detr.engine.run_length import RunLength, check_batch, dataset_names, resolve_length
from align_detr.engine.summary import describe_environment, describe_model, describe_run
from align_detr.engine.trainer import Trainer
from align_detr.engine.writers import append_results, build_writers
from align_detr.errors import ConfigError
from align_detr.evaluation.evaluate import evaluate

logger = logging.getLogger(__name__)


def set_up(cfg: DictConfig) -> None:
    """Make the output folder, start the loggers, seed all generators and set the device's options."""
    output_dir = cfg.train.output_dir
    if comm.is_main_process():
        os.makedirs(output_dir, exist_ok=True)
    comm.synchronize()
    _start_loggers(output_dir)
    check_device(cfg.train.device)
    torch.backends.cudnn.benchmark = bool(cfg.train.cudnn_benchmark)
    _seed(cfg, 0)
    logger.info(describe_environment())


def build_model(cfg: DictConfig) -> nn.Module:
    """Build the model on its device."""
    model = instantiate(cfg.model).to(cfg.train.device)
    logger.info(describe_model(model))
    return model


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer over `model`; the config is left without the model, so that it can be saved."""
    cfg.optimizer.params.model = model
    try:
        return instantiate(cfg.optimizer)
    finally:
        cfg.optimizer.params.model = None


def train(cfg: DictConfig, *, resume: bool = False) -> Mapping[str, Any]:
    """Train and evaluate at the end; return the last evaluation's results ({} on all but the main process).

    With `resume`, continue after the iteration of the newest checkpoint of the output folder. Raises AlignDetrError for
    everything a user can mend.
    """
    check_batch(cfg, comm.get_world_size())
    precision = Precision(enabled=cfg.train.amp.enabled, dtype=cfg.train.amp.dtype, device=cfg.train.device)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    ema = ModelEMA(model=model, decay=cfg.train.ema.decay) if cfg.train.ema.enabled else None
    length = _announce(cfg, model, optimizer)  # reads the data sets: their faults come before weights are downloaded
    checkpointer, state = _load(cfg, model, ema, resume)
    start_iter = state["trainer"]["iteration"] + 1 if "trainer" in state else 0

    # A resumed run draws new images and augmentations instead of the first epoch's again.
    _seed(cfg, start_iter)
    data_loader = instantiate(cfg.dataloader.train)
    parallel_model = wrap_ddp(model, device=cfg.train.device, **cfg.train.ddp)
    if ema is not None and ema.num_updates == 0:
        ema.reset()  # after loading, and after the processes have taken over the weights of the first
    trainer = Trainer(
        model=parallel_model,
        data_loader=data_loader,
        optimizer=optimizer,
        precision=precision,
        clip_max_norm=cfg.train.clip_grad.max_norm,
        clip_norm_type=cfg.train.clip_grad.norm_type,
    )
    checkpointer.add_checkpointable("trainer", trainer)
    results: dict[str, Any] = {}
    _register_hooks(trainer, cfg, length, checkpointer, ema, results)
    if "trainer" in state:
        trainer.load_state_dict(state["trainer"])
        logger.info("Resuming at iteration %d of %d.", start_iter, length.max_iter)
    trainer.train(start_iter, length.max_iter)
    return results


def load_trained(cfg: DictConfig, *, checkpoint: str = "") -> tuple[nn.Module, int]:
    """Build the model with the weights of `checkpoint`, else the newest of the output folder, else of
    `train.init_checkpoint`; return it with the number of iterations it was trained for (0: not known).

    That order because a config's init_checkpoint is often a backbone to start training from; a file that lacks
    parameters of the model, or has them in other shapes, is refused. With `train.ema.enabled` the weights are the
    averaged ones where the checkpoint has them. Raises ConfigError if there is no checkpoint, or an incomplete one, and
    DatasetError, before anything is loaded, if the model has not as many classes as the test data.
    """
    model = build_model(cfg)
    _check_classes(model, dataset_names(cfg.dataloader.get("test", {})))
    ema = ModelEMA(model=model, decay=cfg.train.ema.decay) if cfg.train.ema.enabled else None
    checkpointer = _checkpointer(cfg, model, ema)
    path = checkpoint or checkpointer.last_checkpoint() or cfg.train.init_checkpoint
    if not path:
        raise ConfigError(
            "There is nothing to evaluate: train.init_checkpoint is empty "
            f"and {cfg.train.output_dir} has no checkpoint."
        )
    state = checkpointer.load(path)
    _check_complete(checkpointer, path)
    if ema is not None and ema.num_updates == 0:
        logger.warning("%s has no averaged weights: taking its plain ones although train.ema.enabled is set.", path)
    averaged = ema is not None and ema.num_updates > 0
    logger.info("Loaded the %sweights of %s.", "averaged " if averaged else "", path)
    iteration = state.get("trainer", {}).get("iteration", state.get("iteration", -1)) + 1
    return ema.module if averaged else model, iteration


def evaluate_only(cfg: DictConfig, *, checkpoint: str = "") -> Mapping[str, Any]:
    """Evaluate what `load_trained` loads; return the results and append them to metrics.json as one line."""
    names = dataset_names(cfg.dataloader.test)
    if names:
        count_images(names)  # reads them: missing data is told of before weights are downloaded
    model, iteration = load_trained(cfg, checkpoint=checkpoint)
    results = evaluate(cfg, model)
    if comm.is_main_process():
        logger.info("Results appended to %s.", append_results(cfg.train.output_dir, iteration, results))
    return results


def _start_loggers(output_dir: str) -> None:
    """Log to the terminal and to log.txt of `output_dir`, also if this process has logged elsewhere before."""
    setup_logger.cache_clear()
    for name in ("align_detr", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
        setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name, abbrev_name=name)


def _seed(cfg: DictConfig, offset: int) -> None:
    if cfg.train.seed is not None and cfg.train.seed >= 0:
        seed_all_rng(cfg.train.seed + offset + comm.get_rank())


def _checkpointer(cfg: DictConfig, model: nn.Module, ema: ModelEMA | None) -> Checkpointer:
    return Checkpointer(model, cfg.train.output_dir, **({} if ema is None else {"ema": ema}))


def _load(cfg: DictConfig, model: nn.Module, ema: ModelEMA | None, resume: bool) -> tuple[Checkpointer, dict[str, Any]]:
    """Load the newest checkpoint when resuming, else the initial weights; only the former gives a trainer's state."""
    checkpointer = _checkpointer(cfg, model, ema)
    path = checkpointer.last_checkpoint() if resume else ""
    if path:
        state = checkpointer.load(path)
        if "trainer" not in state:
            raise ConfigError(
                f"{path} holds weights only and cannot be resumed: set train.init_checkpoint to it instead."
            )
    else:
        if resume:
            logger.warning("%s has no checkpoint to resume: starting at iteration 0.", cfg.train.output_dir)
        checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
        state = {}
    return checkpointer, state


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


def _announce(cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunLength:
    """Check the classes, work out the run's length, save the resolved config and say what is going to happen."""
    train_names, test_names = (dataset_names(cfg.dataloader.get(part, {})) for part in ("train", "test"))
    _check_classes(model, train_names + test_names)
    length = resolve_length(cfg, comm.get_world_size())
    if comm.is_main_process():
        LazyConfig.save(cfg, str(Path(cfg.train.output_dir) / "config.yaml"))
    test_images = count_images(test_names) if test_names else 0
    for line in describe_run(
        length=length,
        rates=group_rates(optimizer),
        train_names=train_names,
        test_names=test_names,
        test_images=test_images,
    ):
        logger.info(line)
    return length


def _check_classes(model: nn.Module, names: list[str]) -> None:
    num_classes = getattr(model, "num_classes", None)
    for name in names if num_classes is not None else ():
        check_num_classes(num_classes, name)


def _register_hooks(
    trainer: Trainer,
    cfg: DictConfig,
    length: RunLength,
    checkpointer: Checkpointer,
    ema: ModelEMA | None,
    results: dict[str, Any],
) -> None:
    """Register all hooks; checkpoints come before evaluation, so that a failing evaluation loses nothing."""
    evaluated = checkpointer.model if ema is None else ema.module

    def run_evaluation() -> Mapping[str, Any]:
        results.clear()
        results.update(evaluate(cfg, evaluated))
        return results

    checkpoints, writers = None, None
    if comm.is_main_process():
        checkpoints = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
        built = build_writers(
            output_dir=cfg.train.output_dir,
            max_iter=length.max_iter,
            iterations_per_epoch=length.iterations_per_epoch,
            device=cfg.train.device,
        )
        writers = hooks.PeriodicWriter(built, period=cfg.train.log_period)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            GroupLRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            UpdateEMA(ema=ema) if ema is not None else None,
            checkpoints,
            EvaluationHook(cfg.train.eval_period, run_evaluation),
            writers,
        ]
    )
