"""What a run leaves in its output folder: checkpoints, the evaluated weights alone, and its numbers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.contents import BEST_WEIGHTS_FILE, WEIGHTS_FILE, write_weights
from align_detr.checkpoint.files import disk_problems
from align_detr.engine.best import BestCheckpoint
from align_detr.engine.checkpointing import Checkpoints
from align_detr.engine.class_names import ClassNames, TrainedConfig
from align_detr.engine.hooks import EvaluationHook, WeightsWriter
from align_detr.engine.interruption import Interruption
from align_detr.engine.loggers import check_loggers
from align_detr.engine.run_length import RunLength
from align_detr.engine.run_state import Continue, RunState
from align_detr.engine.writers import METRICS_FILE, MetricsWriter, build_writers, cut_metrics, recount_metrics

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.png"


@dataclass(frozen=True)
class EvaluatedWeights:
    """The weights that a run evaluates, `averaged` or plain, with what a file of them says."""

    folder: Path
    model: nn.Module
    averaged: bool
    classes: ClassNames
    config: TrainedConfig

    def write(self, name: str, iteration: int) -> None:
        """Write them alone into the file `name` of the folder: on the main process only."""
        if comm.is_main_process():
            write_weights(
                self.folder / name,
                self.model,
                class_names=self.classes.names,
                config=self.config.text,
                averaged=self.averaged,
                iteration=iteration,
            )
            logger.info("The evaluated weights alone are in %s.", self.folder / name)


class CurvesWriter(HookBase):
    """The loss and AP of a run over its iterations as a picture, after training."""

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def after_train(self) -> None:
        """Draw what metrics.json has, unless training has failed."""
        if self.trainer.iter >= self.trainer.max_iter:
            from align_detr.evaluation.figures import draw_curves  # takes half a second

            with disk_problems(self.folder / CURVES_FILE):
                draw_curves(self.folder / METRICS_FILE, self.folder / CURVES_FILE)
            logger.info("The curves of loss and AP are in %s.", self.folder / CURVES_FILE)


def output_hooks(
    options: DictConfig,
    length: RunLength,
    *,
    checkpointer: Checkpointer,
    state: RunState,
    saved: Mapping[str, Any],
    weights: EvaluatedWeights,
    evaluation: EvaluationHook,
    best_metric: str | None,
) -> list[HookBase]:
    """Return the hooks that save, evaluate and write, in their order, of which some are of the main process alone.

    Checkpoints and weights come before evaluation, so that a failing evaluation loses nothing; `saved`, the `RunState`
    of the checkpoint that is resumed, says what of that step is to be made again.
    """
    best = metrics = writers = curves = None
    checkpoints = Checkpoints(
        checkpointer, state, **options.checkpointer, written=lambda: -1 if metrics is None else metrics.last
    )
    if best_metric is not None:
        best = BestCheckpoint(
            metric=best_metric,
            patience=options.patience,
            evaluation=evaluation,
            checkpointer=checkpointer,
            length=length,
            on_best=partial(weights.write, BEST_WEIGHTS_FILE),
            save_last=checkpoints.save,
        )
    if comm.is_main_process():
        file, last = Path(options.output_dir) / METRICS_FILE, saved.get("written", -1)
        if recounted := saved.get("recounted"):
            kept, per_epoch = recounted
            recount_metrics(file, kept, lambda done: length.count_as(done, per_epoch))
        else:
            cut_metrics(file, last)  # of a run without a checkpoint, which starts anew, all
        metrics = MetricsWriter(file, last=last)
        outputs = build_writers(
            metrics=metrics,
            output_dir=options.output_dir,
            max_iter=length.max_iter,
            iterations_per_epoch=length.iterations_per_epoch,
            device=options.device,
            total_batch=length.total_batch,
            loggers=check_loggers(options.loggers),
            resumed=bool(saved),
        )
        writers = hooks.PeriodicWriter(outputs, period=options.log_period or length.max_iter + 1)  # 0: at the end only
        curves = CurvesWriter(folder=Path(options.output_dir))
    shared = WeightsWriter(function=partial(weights.write, WEIGHTS_FILE))
    behind = [hook for hook in (shared, evaluation, best, writers, curves) if hook is not None]
    return [checkpoints, *behind, Interruption(checkpoints), Continue(saved, behind)]
