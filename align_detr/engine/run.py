"""Training and evaluation of what a config describes."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.files import remove_unfinished
from align_detr.data import datasets_read_once
from align_detr.data.datasets import known_classes
from align_detr.engine.build import build_checkpointer, build_guard
from align_detr.engine.class_names import ClassNames, TrainedConfig, write_config
from align_detr.engine.distributed import wrap_ddp
from align_detr.engine.folder_lock import folder_lock
from align_detr.engine.hooks import EvaluationHook
from align_detr.engine.learner import Learner, build_learner
from align_detr.engine.mixed_inputs import with_mixed_pictures
from align_detr.engine.output_folder import check_folder, clear_folder
from align_detr.engine.outputs import EvaluatedWeights, output_hooks
from align_detr.engine.plan import RunPlan, plan_run
from align_detr.engine.profiling import StepProfile
from align_detr.engine.run_start import RunStart, load_start
from align_detr.engine.run_state import RunState
from align_detr.engine.shared_cpus import sharing_cpus
from align_detr.engine.trained import load_trained
from align_detr.engine.trainer import Trainer
from align_detr.engine.writers import append_results
from align_detr.evaluation import build_evaluation_sets, evaluate_sets
from align_detr.evaluation.evaluate_layers import evaluate_layers
from align_detr.evaluation.pictures import with_pictures
from align_detr.evaluation.validation_loss import with_losses
from align_detr.lazy_config import settle

logger = logging.getLogger(__name__)


def train(cfg: DictConfig, *, resume: bool = False, overwrite: bool = False, profile: int = 0) -> Mapping[str, Any]:
    """Train and evaluate at the end; return the last evaluation's results ({} on all but the main process).

    With `resume`, continue after the iteration of the newest checkpoint of the output folder; with `overwrite`, remove
    what an earlier run has left in it; otherwise the folder has no checkpoint. Raise AlignDetrError for everything that
    a user can correct; what is wrong with config and data, before weights are downloaded. One training at a time writes
    to a folder. `profile` is the number of steps of which a trace and a page are written (0: none).
    """
    settle(cfg)
    with folder_lock(cfg.train.output_dir), sharing_cpus():
        return _train(cfg, resume=resume, overwrite=overwrite, profile=profile)


def _train(cfg: DictConfig, *, resume: bool, overwrite: bool, profile: int) -> Mapping[str, Any]:
    options = cfg.train
    check_folder(options.output_dir, resume=resume, overwrite=overwrite, start=options.init_checkpoint)
    if comm.is_main_process():
        remove_unfinished(options.output_dir)  # not where only weights are evaluated: a training may be writing there
    given = cfg.copy()  # kept with the run: numbers that follow from the data follow from other data anew
    with datasets_read_once():
        plan = plan_run(cfg)
        learner = build_learner(cfg, plan)
        checkpointer = build_checkpointer(options.output_dir, learner.model, learner.ema)
        start = load_start(checkpointer, options, plan.length, resume=resume)
        data_loader = start.build_loader(cfg)
        names = known_classes(plan.length.data.names[0]) if plan.length.data.names else None
    shown = with_mixed_pictures(
        data_loader, count=options.pictures, output_dir=options.output_dir, names=list(names or ())
    )
    trainer = _build_trainer(options, plan, learner, shown)
    learner.start_average()  # after loading, and after the processes have taken over the weights of the first
    checkpointer.add_checkpointable("trainer", trainer)
    if overwrite:
        clear_folder(options.output_dir)  # now that all is built: an error up to here loses nothing
    if comm.is_main_process():
        write_config(given, Path(options.output_dir) / "config.yaml")
    run_state = RunState(data_loader)
    evaluation, outputs = _build_outputs(options, plan, learner, start, checkpointer, run_state)
    profiling = None
    if profile and comm.is_main_process():
        profiling = StepProfile(folder=Path(options.output_dir), steps=profile, model=learner.model)
    trainer.register_hooks([profiling, *learner.hooks(), *outputs])
    start.restore(trainer, plan.length.max_iter)
    try:
        trainer.train(start.iteration, plan.length.max_iter)
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
        boxes, timeout = cfg.train.validation_loss or layers, cfg.train.data_timeout
        test_sets = build_evaluation_sets(cfg.dataloader, boxes=boxes, timeout=timeout)
        model, iteration = load_trained(cfg, checkpoint=checkpoint)
        other = load_trained(cfg, checkpoint=against)[0] if against else None
    if cfg.train.validation_loss:
        test_sets = with_losses(test_sets, model)
    with sharing_cpus():
        results = evaluate_layers(test_sets, model, other) if layers else evaluate_sets(test_sets, model)
    if comm.is_main_process():
        logger.info("Results appended to %s.", append_results(cfg.train.output_dir, iteration, results))
    return results


def _build_trainer(options: DictConfig, plan: RunPlan, learner: Learner, data_loader: Iterable[Any]) -> Trainer:
    """Return the trainer of the learner, whose model all processes share from now on."""
    return Trainer(
        model=wrap_ddp(learner.model, device=options.device, **options.ddp),
        data_loader=data_loader,
        optimizer=learner.optimizer,
        precision=plan.precision,
        clip_max_norm=options.clip_grad.max_norm,
        clip_norm_type=options.clip_grad.norm_type,
        accumulate=plan.length.accumulate,
        guard=build_guard(options),
    )


def _build_outputs(
    options: DictConfig,
    plan: RunPlan,
    learner: Learner,
    start: RunStart,
    checkpointer: Checkpointer,
    run_state: RunState,
) -> tuple[EvaluationHook, list[HookBase]]:
    """Return the evaluation and all hooks that save, evaluate and write; checkpoints say what they are of."""
    folder, evaluated = Path(options.output_dir), learner.evaluated
    classes, config = ClassNames(plan.length.data.names), TrainedConfig(folder / "config.yaml")
    for key, part in {"classes": classes, "config": config, "length": plan.length, "run": run_state}.items():
        checkpointer.add_checkpointable(key, part)
    test_sets = with_pictures(plan.test_sets, options.pictures, options.output_dir)
    if options.validation_loss:
        test_sets = with_losses(test_sets, evaluated)
    evaluation = EvaluationHook(options.eval_period, partial(evaluate_sets, test_sets, evaluated))
    outputs = output_hooks(
        options,
        plan.length,
        checkpointer=checkpointer,
        state=run_state,
        saved=start.saved,
        weights=EvaluatedWeights(folder, evaluated, learner.ema is not None, classes, config),
        evaluation=evaluation,
        best_metric=plan.best_metric,
    )
    return evaluation, outputs
