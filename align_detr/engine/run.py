"""Training and evaluation of what a config describes."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import hooks
from detectron2.utils import comm
from omegaconf import DictConfig

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.data import datasets_read_once
from align_detr.data.build import set_timeout
from align_detr.data.datasets import known_classes
from align_detr.engine.attention_sparsity import attention_sparsity
from align_detr.engine.best import check_best, require_metric
from align_detr.engine.build import (
    build_checkpointer,
    build_ema,
    build_guard,
    build_model,
    build_optimizer,
    check_classes,
)
from align_detr.engine.capacity import check_capacity
from align_detr.engine.class_names import ClassNames, TrainedConfig, check_trained_classes
from align_detr.engine.distributed import wrap_ddp
from align_detr.engine.freezing import FixedNorms, freeze
from align_detr.engine.hooks import EvaluationHook, GroupLRScheduler, UpdateEMA, group_rates
from align_detr.engine.loggers import check_loggers
from align_detr.engine.output_folder import check_folder, clear_folder
from align_detr.engine.outputs import EvaluatedWeights, output_hooks
from align_detr.engine.precision import Precision
from align_detr.engine.rates import build_schedule, scale_rates
from align_detr.engine.recomputation import checkpoint_activations
from align_detr.engine.run_length import read_data, resolve_length
from align_detr.engine.run_state import RunState, continued, start_data
from align_detr.engine.start import seed
from align_detr.engine.summary import describe_run
from align_detr.engine.trained import load_trained
from align_detr.engine.trainer import Trainer
from align_detr.engine.writers import append_results
from align_detr.errors import ConfigError
from align_detr.evaluation import build_evaluation_sets, evaluate_sets, missing_evaluation
from align_detr.evaluation.evaluate_layers import evaluate_layers
from align_detr.evaluation.pictures import with_pictures
from align_detr.evaluation.validation_loss import with_losses
from align_detr.lazy_config import settle
from align_detr.option_values import check_training
from align_detr.overrides import unread_keys

logger = logging.getLogger(__name__)


def train(cfg: DictConfig, *, resume: bool = False, overwrite: bool = False) -> Mapping[str, Any]:
    """Train and evaluate at the end; return the last evaluation's results ({} on all but the main process).

    With `resume`, continue after the iteration of the newest checkpoint of the output folder; with `overwrite`, remove
    what an earlier run has left in it; otherwise the folder has no checkpoint. Raise AlignDetrError for everything that
    a user can correct; what is wrong with config and data, before weights are downloaded.
    """
    settle(cfg)
    options, loaders = cfg.train, cfg.dataloader
    check_folder(options.output_dir, resume=resume, overwrite=overwrite, start=options.init_checkpoint)
    given = cfg.copy()  # kept with the run: numbers that follow from the data follow from other data anew
    if unread := unread_keys(options):
        logger.warning("Nothing reads %s of the config: remove or correct the keys.", ", ".join(unread))
    precision = Precision(enabled=options.amp.enabled, dtype=options.amp.dtype, device=options.device)
    check_training(cfg)
    missing = missing_evaluation(loaders)
    if missing:
        logger.warning("Nothing is evaluated, as the config has no dataloader.%s.", missing)
    with datasets_read_once():
        length = resolve_length(options, loaders.train, comm.get_world_size())
        best_metric = check_best(
            options.best,
            options.patience,
            options.eval_period,
            validation_loss=options.validation_loss,
            evaluated=not missing,
        )
        check_loggers(options.loggers)
        test_data = read_data(loaders.get("test"))
        # what evaluation cannot use is found out now, not after an epoch
        test_sets = [] if missing else build_evaluation_sets(loaders, boxes=options.validation_loss)
        require_metric(best_metric, test_sets)

        model = build_model(cfg.model, options.device)
        check_classes(model, [*length.data.names, *test_data.names])
        check_capacity(cfg.model, [*length.data.names, *test_data.names])
        fixed_norms = freeze(model, options.freeze)
        sparsity = attention_sparsity(model, options.attention_sparsity)
        checkpoint_activations(model, options.checkpoint_activations)
        optimizer = build_optimizer(cfg.optimizer, model)
        scaling = scale_rates(optimizer, options, length.total_batch)
        schedule = build_schedule(cfg.lr_multiplier, options.warmup_epochs, length)
        ema = build_ema(options.ema, model)
        for line in describe_run(length=length, test_data=test_data, rates=group_rates(optimizer), scaling=scaling):
            logger.info(line)

        checkpointer = build_checkpointer(options.output_dir, model, ema)
        state = _load_start(checkpointer, options, resume, length.data.names)
        start_iter = length.start_after(state["trainer"]["iteration"] + 1, state.get("length", {})) if state else 0
        seed(options.seed, start_iter)  # for loaders and checkpoints whose place and generators are not known
        data_loader = instantiate(loaders.train)
        set_timeout(data_loader, options.data_timeout)
        saved = continued(state, start_iter)
        start_data(data_loader, start_iter, saved)
    trainer = Trainer(
        model=wrap_ddp(model, device=options.device, **options.ddp),
        data_loader=data_loader,
        optimizer=optimizer,
        precision=precision,
        clip_max_norm=options.clip_grad.max_norm,
        clip_norm_type=options.clip_grad.norm_type,
        accumulate=length.accumulate,
        guard=build_guard(options),
    )
    if ema is not None and ema.num_updates == 0:
        ema.reset()  # after loading, and after the processes have taken over the weights of the first
    checkpointer.add_checkpointable("trainer", trainer)
    if overwrite:
        clear_folder(options.output_dir)  # now that all is built: an error up to here loses nothing
    if comm.is_main_process():
        LazyConfig.save(given, str(Path(options.output_dir) / "config.yaml"))
    classes, config = ClassNames(length.data.names), TrainedConfig(Path(options.output_dir) / "config.yaml")
    run_state = RunState(data_loader)
    for key, part in {"classes": classes, "config": config, "length": length, "run": run_state}.items():
        checkpointer.add_checkpointable(key, part)
    evaluated = model if ema is None else ema.module
    test_sets = with_pictures(test_sets, options.pictures, options.output_dir)
    if options.validation_loss:
        test_sets = with_losses(test_sets, evaluated)
    evaluation = EvaluationHook(options.eval_period, partial(evaluate_sets, test_sets, evaluated))
    weights = EvaluatedWeights(Path(options.output_dir), evaluated, ema is not None, classes, config)
    outputs = output_hooks(
        options,
        length,
        checkpointer=checkpointer,
        state=run_state,
        saved=saved,
        weights=weights,
        evaluation=evaluation,
        best_metric=best_metric,
    )
    averaging = None if ema is None else UpdateEMA(ema=ema)
    rates, norms = GroupLRScheduler(scheduler=schedule), FixedNorms(norms=fixed_norms)
    steps = [hooks.IterationTimer(), rates, norms, averaging, sparsity]
    trainer.register_hooks([*steps, *outputs])
    if state:
        trainer.load_state_dict(state["trainer"])
        logger.info("Resuming at iteration %d of %d.", start_iter, length.max_iter)
    try:
        trainer.train(start_iter, length.max_iter)
    finally:
        trainer.stop_workers()
    return evaluation.results


def evaluate_only(
    cfg: DictConfig, *, checkpoint: str = "", layers: bool = False, against: str = ""
) -> Mapping[str, Any]:
    """Evaluate what `load_trained` loads; return the results and append them to metrics.json as one line.

    `layers`, `against`: evaluate every decoder layer, and compare the matching with that of another checkpoint, as
    `evaluate_layers` does.
    """
    settle(cfg)
    with datasets_read_once():
        # errors of the data come before weights are downloaded
        test_sets = build_evaluation_sets(cfg.dataloader, boxes=cfg.train.validation_loss or layers)
        model, iteration = load_trained(cfg, checkpoint=checkpoint)
        other = load_trained(cfg, checkpoint=against)[0] if against else None
    if cfg.train.validation_loss:
        test_sets = with_losses(test_sets, model)
    results = evaluate_layers(test_sets, model, other) if layers else evaluate_sets(test_sets, model)
    if comm.is_main_process():
        logger.info("Results appended to %s.", append_results(cfg.train.output_dir, iteration, results))
    return results


def _load_start(
    checkpointer: Checkpointer, options: DictConfig, resume: bool, dataset_names: Sequence[str]
) -> dict[str, Any]:
    """Load the newest checkpoint when resuming, else the initial weights; return what else it holds ({} if new)."""
    path = checkpointer.newest_sound() if resume else ""
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
    checkpointer.require_complete()
    check_trained_classes(state.get("classes", {}).get("names"), path, dataset_names)
    return state
