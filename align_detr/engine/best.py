"""The best evaluation of a run: its checkpoint, and the end of training when nothing gets better."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.files import write_file
from align_detr.engine.hooks import EvaluationHook
from align_detr.engine.run_length import RunLength
from align_detr.errors import ConfigError
from align_detr.evaluation.evaluate import PREFIX, EvaluationSet

logger = logging.getLogger(__name__)

BEST_FILE = "best.json"
DEFAULT_METRIC = "bbox/AP"


@dataclass(frozen=True)
class Evaluated:
    """The value of the metric after a number of iterations; NaN, as AP is without objects, is never the best."""

    iteration: int
    value: float


class BestCheckpoint(HookBase):
    """The checkpoint of the best evaluation as model_best.pth, and the end of training after `patience` evaluations
    without a better one (None: never).

    `metric` is a result such as "bbox/AP", of which more is better, or a validation loss. All its values are kept in
    best.json, so that a resumed run knows them; with the `length` of the run, also one whose epochs have another number
    of iterations. Stands after the evaluation hook, on every process. `on_best` is called
    with the number of iterations beside the saving; `save_last` (default: the checkpointer's) saves the checkpoints of
    a list of names when training ends early, so that a resumed run makes the evaluation again and ends as well.
    Raise ConfigError after the first evaluation if that has no such result.
    """

    def __init__(
        self,
        *,
        metric: str,
        patience: int | None,
        evaluation: EvaluationHook,
        checkpointer: Checkpointer,
        length: RunLength | None = None,
        on_best: Callable[[int], None] | None = None,
        save_last: Callable[[list[str]], object] | None = None,
    ) -> None:
        self.metric = metric
        self.patience = patience
        self.evaluation = evaluation
        self.checkpointer = checkpointer
        self.length = length
        self.on_best = on_best
        self.save_last = save_last
        self.evaluations: list[Evaluated] = []
        self._seen = 0  # evaluations of the hook

    @property
    def file(self) -> Path:
        """The file of all values."""
        return Path(self.checkpointer.save_dir) / BEST_FILE

    @property
    def best(self) -> Evaluated | None:
        """The first of the best evaluations."""
        numbers = [each for each in self.evaluations if not math.isnan(each.value)]
        sign = -1 if is_loss(self.metric) else 1
        return max(numbers, key=lambda each: sign * each.value, default=None)

    def before_train(self) -> None:
        """Read the evaluations of the run that is resumed, up to where it continues."""
        start = self.trainer.start_iter
        if start > 0 and comm.is_main_process() and self.file.is_file():
            try:
                known = self._read_all(json.loads(self.file.read_text(encoding="utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(
                    f"{self.file} is damaged ({type(error).__name__}: {error}): put a copy back, or remove it, which "
                    "forgets what was the best so far."
                ) from error
            self.evaluations = [each for each in known if each.iteration <= start]

    def _read_all(self, saved: Mapping[str, Any]) -> list[Evaluated]:
        """Return the evaluations in best.json, or none if they are of another metric."""
        if saved["metric"] != self.metric:
            return []
        return [self._read(row, saved.get("iterations_per_epoch")) for row in saved["evaluations"]]

    def _read(self, row: Mapping[str, Any], per_epoch: int | None) -> Evaluated:
        """Return an evaluation in best.json, at its iteration in epochs of the present length."""
        iteration, value = int(row["iteration"]), row["value"]
        if self.length is not None and per_epoch:
            iteration = self.length.count_as(iteration, per_epoch)
        return Evaluated(iteration, math.nan if value is None else float(value))

    def after_step(self) -> None:
        """Look at an evaluation that has just been made; end training if it is one too many without a gain."""
        if self._is_new() and self._look(self.trainer.iter + 1):
            self.trainer.max_iter = self.trainer.iter + 1
            if self.save_last is None:
                self.checkpointer.save("model_final", iteration=self.trainer.iter)
            else:
                self.save_last(["model_final"])

    def after_train(self) -> None:
        """Look at the last evaluation, unless training has failed."""
        if self.trainer.iter >= self.trainer.max_iter and self._is_new():
            self._look(self.trainer.iter)

    def _is_new(self) -> bool:
        new, self._seen = self.evaluation.rounds > self._seen, self.evaluation.rounds
        return new

    def _look(self, iteration: int) -> bool:
        """Keep the results if they are the best; return, on every process, whether patience is at its end."""
        ended = False
        if comm.is_main_process():
            # a resumed run makes the evaluation after its checkpoint again
            self.evaluations = [each for each in self.evaluations if each.iteration < iteration]
            before = self.best
            self.evaluations.append(Evaluated(iteration, self._value(self.evaluation.results)))
            if self.best is not before:
                self._save(iteration)
            rows = [{**asdict(each), "value": _finite(each.value)} for each in self.evaluations]
            per_epoch = None if self.length is None else self.length.iterations_per_epoch
            content = {"metric": self.metric, "iterations_per_epoch": per_epoch, "evaluations": rows}
            _write(self.file, json.dumps(content))
            ended = self._is_at_its_end()
        return bool(comm.all_gather(ended)[0])

    def _value(self, results: Mapping[str, Any]) -> float:
        flat = flatten_results_dict(results)
        if self.metric not in flat:
            known = ", ".join(sorted(flat)) or "none"
            raise ConfigError(f"train.best={self.metric} is no result of the evaluation: use one of {known}.")
        return float(flat[self.metric])

    def _save(self, iteration: int) -> None:
        """Save model_best.pth; the checkpoint to resume from stays the last one."""
        self.checkpointer.save("model_best", newest=False, iteration=iteration - 1)
        if self.on_best is not None:
            self.on_best(iteration)
        logger.info("Best %s so far: %.4g after iteration %d.", self.metric, self.evaluations[-1].value, iteration)

    def _is_at_its_end(self) -> bool:
        best = self.best
        since = sum(best is None or each.iteration > best.iteration for each in self.evaluations)
        if self.patience is None or since < self.patience:
            return False
        side = "below" if is_loss(self.metric) else "above"
        known = "has no value" if best is None else f"is not {side} the {best.value:.4g} of iteration {best.iteration}"
        logger.info("Training ends: %s %s in %d evaluations (train.patience).", self.metric, known, since)
        return True


def is_loss(metric: str) -> bool:
    """Return whether less of a metric is better: of validation losses, also of one of several sets."""
    return metric.rsplit("/", 1)[-1].startswith(PREFIX)


def check_best(
    metric: str | None,
    patience: int | None,
    eval_period: int,
    *,
    validation_loss: bool = True,
    evaluated: bool = True,
) -> str | None:
    """Return the metric whose best value counts (None: none); raise ConfigError for settings that make no sense, as
    where nothing is `evaluated`.
    """
    if not evaluated and (metric or patience is not None):
        key = "best" if metric else "patience"
        raise ConfigError(
            f"train.{key} needs evaluations, and the config has no test data or evaluator: set train.{key}=null, or "
            "dataloader.test and dataloader.evaluator."
        )
    if metric and is_loss(metric) and not validation_loss:
        raise ConfigError(f"train.best={metric} is a validation loss: set train.validation_loss=True as well.")
    if patience is None:
        return metric or None
    if type(patience) is not int or patience < 1:
        raise ConfigError(f"train.patience={patience} must count evaluations: set it to at least 1, or to null.")
    if eval_period <= 0:
        raise ConfigError(
            f"train.patience={patience} needs evaluations during training: set train.eval_period above {eval_period}."
        )
    return metric or DEFAULT_METRIC


def require_metric(metric: str | None, sets: Sequence[EvaluationSet]) -> None:
    """Raise ConfigError for a `train.best` that no evaluation of `sets` has: the results of several sets have the set's
    name in front. What evaluators of others return is not known.
    """
    if metric is None or not sets:
        return
    keys = []
    for each in sets:
        prefix = f"{each.name}/" if len(sets) > 1 else ""
        names, rest = getattr(each.evaluator, "result_names", None), metric.removeprefix(prefix)
        if metric.startswith(prefix) and (names is None or rest in names or is_loss(rest)):
            return
        shown = [DEFAULT_METRIC] if names is None else [n for n in names if not n.startswith(f"{DEFAULT_METRIC}-")]
        keys += [f"{prefix}{name}" for name in shown]
    known = f"use one of {', '.join(keys)}" if keys else "the test data have no annotations: set it to null"
    raise ConfigError(f"train.best={metric} is no result of the evaluation: {known}.")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(path: Path, text: str) -> None:
    write_file(path, lambda file: file.write(f"{text}\n".encode()))
