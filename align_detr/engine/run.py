"""Training and evaluation of what a config describes."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.contents import WEIGHTS_FILE, write_weights
from align_detr.data import datasets_read_once
from align_detr.data.datasets import known_classes
from align_detr.engine.build import build_checkpointer, build_ema, build_model, build_optimizer, check_classes
from align_detr.engine.capacity import check_capacity
from align_detr.engine.class_names import ClassNames, TrainedConfig, check_trained_classes
from align_detr.engine.distributed import wrap_ddp
from align_detr.engine.ema import ModelEMA
from align_detr.engine.hooks import EvaluationHook, GroupLRScheduler, UpdateEMA, WeightsWriter, group_rates
from align_detr.engine.precision import Precision
from align_detr.engine.run_length import RunLength, read_data, resolve_length
from align_detr.engine.start import seed
from align_detr.engine.summary import describe_run
from align_detr.engine.trained import load_trained
from align_detr.engine.trainer import Trainer
from align_detr.engine.writers import append_results, build_writers
from align_detr.errors import ConfigError
from align_detr.evaluation import build_evaluation_sets, evaluate_sets, require_evaluation

logger = logging.getLogger(__name__)


def train(cfg: DictConfig, *, resume: bool = False) -> Mapping[str, Any]:
    """Train and evaluate at the end; return the last evaluation's results ({} on all but the main process).

    With `resume`, continue after the iteration of the newest checkpoint of the output folder. Raise AlignDetrError for
    everything that a user can correct; what is wrong with config and data, before weights are downloaded.
    """
    options, loaders = cfg.train, cfg.dataloader
    precision = Precision(enabled=options.amp.enabled, dtype=options.amp.dtype, device=options.device)
    require_evaluation(loaders)
    with datasets_read_once():
        length = resolve_length(options, loaders.train, comm.get_world_size())
        test_data = read_data(loaders.test)
        test_sets = build_evaluation_sets(loaders)  # what evaluation cannot use is found out now, not after an epoch

        model = build_model(cfg.model, options.device)
        check_classes(model, [*length.data.names, *test_data.names])
        check_capacity(cfg.model, [*length.data.names, *test_data.names])
        optimizer = build_optimizer(cfg.optimizer, model)
        schedule = instantiate(cfg.lr_multiplier)
        ema = build_ema(options.ema, model)
        if comm.is_main_process():
            LazyConfig.save(cfg, str(Path(options.output_dir) / "config.yaml"))
        for line in describe_run(length=length, test_data=test_data, rates=group_rates(optimizer)):
            logger.info(line)

        checkpointer = build_checkpointer(options.output_dir, model, ema)
        state = _load_start(checkpointer, options, resume, length.data.names)
        start_iter = state["iteration"] + 1 if state else 0
        seed(options.seed, start_iter)  # a resumed run draws new images and augmentations, not those of its first epoch
        data_loader = instantiate(loaders.train)
    trainer = Trainer(
        model=wrap_ddp(model, device=options.device, **options.ddp),
        data_loader=data_loader,
        optimizer=optimizer,
        precision=precision,
        clip_max_norm=options.clip_grad.max_norm,
        clip_norm_type=options.clip_grad.norm_type,
    )
    if ema is not None and ema.num_updates == 0:
        ema.reset()  # after loading, and after the processes have taken over the weights of the first
    checkpointer.add_checkpointable("trainer", trainer)
    classes, config = ClassNames(length.data.names), TrainedConfig(Path(options.output_dir) / "config.yaml")
    checkpointer.add_checkpointable("classes", classes)
    checkpointer.add_checkpointable("config", config)
    evaluation = EvaluationHook(
        options.eval_period, partial(evaluate_sets, test_sets, model if ema is None else ema.module)
    )
    checkpoints, writers = _output_hooks(options, length, checkpointer)
    averaging = None if ema is None else UpdateEMA(ema=ema)
    weights = partial(_write_weights, Path(options.output_dir) / WEIGHTS_FILE, model, ema, classes, config)
    # Checkpoints and weights come before evaluation, so that a failing evaluation loses nothing.
    trainer.register_hooks([hooks.IterationTimer(), GroupLRScheduler(scheduler=schedule), averaging, checkpoints])
    trainer.register_hooks([WeightsWriter(function=weights), evaluation, writers])
    if state:
        trainer.load_state_dict(state)
        logger.info("Resuming at iteration %d of %d.", start_iter, length.max_iter)
    trainer.train(start_iter, length.max_iter)
    return evaluation.results


def evaluate_only(cfg: DictConfig, *, checkpoint: str = "") -> Mapping[str, Any]:
    """Evaluate what `load_trained` loads; return the results and append them to metrics.json as one line."""
    with datasets_read_once():
        test_sets = build_evaluation_sets(cfg.dataloader)  # errors of the data come before weights are downloaded
        model, iteration = load_trained(cfg, checkpoint=checkpoint)
    results = evaluate_sets(test_sets, model)
    if comm.is_main_process():
        logger.info("Results appended to %s.", append_results(cfg.train.output_dir, iteration, results))
    return results


def _load_start(
    checkpointer: Checkpointer, options: DictConfig, resume: bool, dataset_names: Sequence[str]
) -> dict[str, Any]:
    """Load the newest checkpoint when resuming, else the initial weights; return the trainer's state ({} if new)."""
    path = checkpointer.last_checkpoint() if resume else ""
    if not path:
        if resume:
            logger.warning("%s has no checkpoint to resume: starting at iteration 0.", checkpointer.save_dir)
        if options.init_checkpoint:
            weights = checkpointer.read(options.init_checkpoint, averaged=options.get("init_averaged", True))
            checkpointer.load_weights(weights, class_names=known_classes(dataset_names[0]) if dataset_names else None)
        return {}
    state = checkpointer.load(path)
    if "trainer" not in state:
        raise ConfigError(f"{path} holds weights only and cannot be resumed: set train.init_checkpoint to it instead.")
    check_trained_classes(state.get("classes", {}).get("names"), path, dataset_names)
    return state["trainer"]


def _write_weights(
    path: Path, model: nn.Module, ema: ModelEMA | None, classes: ClassNames, config: TrainedConfig, iteration: int
) -> None:
    """Write the evaluated weights alone: averaged if there are averages. On the main process only."""
    if comm.is_main_process():
        evaluated = model if ema is None else ema.module
        write_weights(
            path,
            evaluated,
            class_names=classes.names,
            config=config.text,
            averaged=ema is not None,
            iteration=iteration,
        )
        logger.info("The evaluated weights alone are in %s.", path)


def _output_hooks(
    options: DictConfig, length: RunLength, checkpointer: Checkpointer
) -> tuple[HookBase | None, HookBase | None]:
    """Return the hooks that save checkpoints and write metrics: on the main process only."""
    if not comm.is_main_process():
        return None, None
    writers = build_writers(
        output_dir=options.output_dir,
        max_iter=length.max_iter,
        iterations_per_epoch=length.iterations_per_epoch,
        device=options.device,
    )
    checkpoints = hooks.PeriodicCheckpointer(checkpointer, **options.checkpointer)
    return checkpoints, hooks.PeriodicWriter(writers, period=options.log_period)
