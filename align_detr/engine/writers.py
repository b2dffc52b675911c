"""Outputs of the numbers of a run: the terminal, metrics.json and tensorboard."""

import datetime
import json
import logging
import math
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventStorage, EventWriter, TensorboardXWriter, get_event_storage

from align_detr.checkpoint.files import disk_problems, write_file
from align_detr.engine.loggers import LOGGERS, NewNumbers
from align_detr.modeling.events import POSITIVES, logged_sets
from align_detr.modeling.loss_sums import describe_sums, loss_names, sums_by_set

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"


class ProgressPrinter(EventWriter):
    """Progress lines: iteration, epoch, loss and its sums per set, positives, rates, seconds of data and step, images
    per second, time left, memory.

    The sums are of all layers ("class", "bbox", "giou"); each term goes to metrics.json. Losses are medians over
    `window` iterations, times their averages. `total_batch` is the number of images per step, over all processes.
    Memory is the largest so far: PyTorch's of the GPU, or this process's.
    """

    def __init__(
        self, *, max_iter: int, iterations_per_epoch: int, device: str, total_batch: int | None = None, window: int = 20
    ) -> None:
        self.max_iter = max_iter
        self.iterations_per_epoch = iterations_per_epoch
        self.on_cuda = torch.device(device).type == "cuda"
        self.total_batch = total_batch
        self.window = window

    def write(self) -> None:
        """Print the line of the present iteration, or nothing after the last, also if training ended early."""
        storage = get_event_storage()
        _, iteration = storage.latest().get("total_loss", (None, storage.iter))
        if iteration == storage.iter < self.max_iter:
            logger.info(self.line(storage))

    def line(self, storage: EventStorage) -> str:
        """Return the progress line for the numbers in `storage`."""
        done = storage.iter + 1
        parts = [
            f"iter {done}/{self.max_iter}",
            f"epoch {done / self.iterations_per_epoch:.2f}",
            self._losses(storage),
            self._positives(storage),
            self._rates(storage),
            *self._times(storage, done),
            f"mem {self._memory():.0f} MiB",
        ]
        return "  ".join(part for part in parts if part)

    def _losses(self, storage: EventStorage) -> str:
        histories = storage.histories()
        if "total_loss" not in histories:
            return ""
        recent = {name: histories[name].values()[-self.window :] for name in loss_names(histories)}
        sets = logged_sets()
        steps = zip(*(([value for value, _ in values]) for values in recent.values()), strict=False)
        sums = [sums_by_set(dict(zip(recent, values, strict=True)), sets) for values in steps]
        medians = {
            name: {loss: median(each[name][loss] for each in sums) for loss in of_set}
            for name, of_set in (sums[-1].items() if sums else ())
        }
        return f"loss {describe_sums(medians, histories['total_loss'].median(self.window))}"

    def _positives(self, storage: EventStorage) -> str:
        history = storage.histories().get(POSITIVES)
        return "" if history is None else f"positives per object {history.avg(self.window):.3g}"

    def _memory(self) -> float:
        """Return the largest use of memory so far, in MiB."""
        if self.on_cuda:
            return torch.cuda.max_memory_allocated() / 2**20
        unit = 1 if sys.platform == "darwin" else 2**10  # bytes, or KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

    def _rates(self, storage: EventStorage) -> str:
        rates = {k[3:]: v.latest() for k, v in storage.histories().items() if k.startswith("lr_")}
        return "lr " + " ".join(f"{name} {rate:.3g}" for name, rate in rates.items()) if rates else ""

    def _times(self, storage: EventStorage, done: int) -> list[str]:
        histories = storage.histories()
        parts = []
        if "data_time" in histories:
            parts.append(f"data {histories['data_time'].avg(self.window):.3f} s")
        if "time" in histories:  # measured from the fourth iteration on
            step = histories["time"].avg(self.window)
            parts.append(f"step {step:.3f} s")
            if self.total_batch is not None and step > 0:
                parts.append(f"{self.total_batch / step:.3g} images/s")
            seconds = histories["time"].median(1000) * (self.max_iter - done)
            parts.append(f"left {datetime.timedelta(seconds=int(seconds))}")
        return parts


class MetricsWriter(EventWriter):
    """One line per iteration with all numbers that are new since the last write, appended to a file.

    detectron2's JSONWriter writes NaN, which is no JSON. Numbers with a smoothing hint are medians over `window`.
    A resumed run begins after the `last` iteration of the file.
    """

    def __init__(self, path: Path, *, window: int = 20, last: int = -1) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")
        self._numbers = NewNumbers(window, last)

    @property
    def last(self) -> int:
        """The iteration of the last line."""
        return self._numbers.last

    def write(self) -> None:
        """Append the new numbers of the present storage."""
        with disk_problems(self._path):
            for iteration, row in self._numbers.take().items():
                self._file.write(metrics_line({**row, "iteration": iteration}))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def build_writers(
    *,
    metrics: MetricsWriter,
    output_dir: str,
    max_iter: int,
    iterations_per_epoch: int,
    device: str,
    total_batch: int | None = None,
    loggers: Sequence[str] = (),
    resumed: bool = False,
) -> list[EventWriter]:
    """Return the terminal, JSON and tensorboard writers of a run, and those of the `loggers`, which go on with the runs
    of the output folder if it is `resumed`; warn if tensorboard is not installed.
    """
    writers: list[EventWriter] = [
        ProgressPrinter(
            max_iter=max_iter, iterations_per_epoch=iterations_per_epoch, device=device, total_batch=total_batch
        ),
        metrics,
        *(LOGGERS[name](output_dir, resumed=resumed) for name in loggers),
    ]
    try:
        writers.append(_tensorboard(output_dir))
    except ImportError as error:
        logger.warning(
            "There is no tensorboard log (%s); metrics.json has all numbers: `pip install tensorboard` adds it.", error
        )
    return writers


def cut_metrics(path: Path, last: int) -> None:
    """Remove the lines after iteration `last`, which a resumed run writes again, and a line that was cut off."""
    _keep_metrics(path, lambda line: [line] if last >= _iteration(line) else [])


def recount_metrics(path: Path, last: int, count: Callable[[int], int]) -> None:
    """Give the lines up to iteration `last`, and that of an evaluation of its weights, the iterations of a resumed run
    whose epochs have another length: `count` says what a number of iterations counts as there. Remove the lines after.
    """

    def recounted(line: str) -> list[str]:
        iteration = _iteration(line)
        if iteration > last + 1:
            return []
        row = json.loads(line)
        if iteration > last and "lr" in row:  # of a further step
            return []
        return [json.dumps({**row, "iteration": max(0, count(min(int(iteration), last) + 1) - 1)}, sort_keys=True)]

    _keep_metrics(path, recounted)


def _keep_metrics(path: Path, kept: Callable[[str], list[str]]) -> None:
    """Replace each line of metrics.json by what is `kept` of it; log how many lines are removed."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    new = [each for line in lines for each in kept(line)]
    if new != lines:
        write_file(path, lambda file: file.write("".join(f"{line}\n" for line in new).encode()))
    if len(new) < len(lines):
        logger.info("Removed %d lines of %s that follow the checkpoint.", len(lines) - len(new), path)


def _iteration(line: str) -> float:
    """Return the iteration of a line, or infinity for a line that is no JSON."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def append_results(output_dir: str, iteration: int, results: Mapping[str, Any]) -> Path:
    """Append evaluation results to metrics.json as one line, in the form of those of training; return the file."""
    path = Path(output_dir) / METRICS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {key: float(value) for key, value in flatten_results_dict(results).items()}
    with path.open("a", encoding="utf-8") as handle:
        handle.write(metrics_line({**row, "iteration": iteration}))
    return path


def metrics_line(row: Mapping[str, float]) -> str:
    """Return a line of metrics.json: strict JSON, with null for NaN and infinity."""
    finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(finite, sort_keys=True, allow_nan=False) + "\n"


def _tensorboard(output_dir: str) -> EventWriter:
    """Return the tensorboard writer; raise ImportError if tensorboard is not installed."""
    writer = TensorboardXWriter(output_dir)
    # newer detectron2 opens the event file only at the first write: fail here, not in the first iteration
    import torch.utils.tensorboard  # noqa: F401

    return writer
