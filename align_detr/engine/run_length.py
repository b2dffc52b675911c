"""Length of a run: the numbers of a config that follow from the size of the training data."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig

from align_detr.data import count_images, count_training_images
from align_detr.data.names import dataset_names
from align_detr.engine.accumulation import check_accumulate
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSize:
    """Names of the data sets of a loader, and their images in all; [] and 0 if the config names none."""

    names: list[str]
    images: int


@dataclass(frozen=True)
class RunLength:
    """Length of a run: training data, images per batch over all processes, iterations; whether epochs set them.

    `accumulate` is the number of parts in which each process computes its share of a batch.
    """

    data: DataSize
    total_batch: int
    iterations_per_epoch: int
    max_iter: int
    by_epochs: bool = False
    accumulate: int = 1

    @property
    def epochs(self) -> float:
        """Passes over the training set."""
        return self.max_iter / self.iterations_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to be continued with another length of an epoch."""
        return {"iterations_per_epoch": self.iterations_per_epoch, "total_batch": self.total_batch}

    def count_as(self, done: int, before: int) -> int:
        """Return what `done` iterations, in epochs of `before`, count as here: in a run of epochs, as many epochs."""
        return round(done / before * self.iterations_per_epoch) if self.by_epochs else done

    def start_after(self, done: int, saved: Mapping[str, Any]) -> int:
        """Return the iteration to start at after `done` iterations of a run with the `state_dict` `saved` ({}: this).

        A run of epochs keeps its epochs: if an epoch has another number of iterations now, `done` is converted, which
        is logged. Raise ConfigError if more is done than the config asks for.
        """
        before, now = int(saved.get("iterations_per_epoch", self.iterations_per_epoch)), self.iterations_per_epoch
        start = self.count_as(done, before)
        if self.by_epochs and before != now:
            logger.warning(
                "An epoch had %d iterations when the checkpoint was saved, and has %d now: its %d iterations, %.3g "
                "epochs, count as %d.",
                *(before, now, done, done / before, start),
            )
        key = "train.epochs" if self.by_epochs else "train.max_iter"
        if start > self.max_iter:
            raise ConfigError(
                f"Nothing is left to train: the checkpoint is at iteration {start}, and the config asks for "
                f"{self.max_iter}: raise {key}, or evaluate with --eval-only."
            )
        if start == self.max_iter:
            logger.warning("Nothing is left to train of %d iterations: raise %s to train on.", start, key)
        return start


def read_data(loader: DictConfig | ListConfig | None) -> DataSize:
    """Read the data sets of a loader's config or of a list of them; raise DatasetError for data that cannot be used."""
    names = dataset_names(loader)
    return DataSize(names, count_images(names) if names else 0)


def read_training_data(loader: DictConfig) -> DataSize:
    """Read the data sets of a training loader's config, and count the images that it yields.

    Raise DatasetError for data that cannot be used, and for data without any box.
    """
    names = dataset_names(loader)
    return DataSize(names, count_training_images(names, filter_empty=_filters_empty(loader)) if names else 0)


def _filters_empty(loader: DictConfig) -> bool:
    """Return whether a training loader leaves out images without objects (detectron2's own does by default)."""
    node = loader.get("dataset", None)
    if isinstance(node, DictConfig):
        return bool(node.get("filter_empty", True))
    return bool(loader.get("filter_empty", False))


def check_batch(loader: DictConfig, world_size: int) -> int:
    """Return the images per batch over all processes; raise ConfigError unless all processes get the same number."""
    total = loader.get("total_batch_size", None)
    if total is None:
        raise ConfigError(
            "dataloader.train.total_batch_size is missing: set it to the images per batch over all processes."
        )
    if not isinstance(total, int) or total < 1:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total} must be positive: set it to a whole number of images."
        )
    if total % world_size:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total} cannot be shared equally by {world_size} processes: "
            f"set it to a multiple of {world_size}."
        )
    return int(total)


def resolve_length(options: DictConfig, loader: DictConfig, world_size: int) -> RunLength:
    """Return the length of a run; fill in max_iter, eval_period and checkpointer.period of `options` if they are None.

    `options` and `loader` are the nodes `train` and `dataloader.train` of a config. An epoch has
    max(1, images // images per batch) iterations; images without objects count unless the loader leaves them out. Raise
    ConfigError if the epochs are not positive, if max_iter is None and the size of the training data is not known, or
    if `accumulate` does not divide a process's images; DatasetError for data that cannot be used or has no box.
    """
    total_batch = check_batch(loader, world_size)
    accumulate = check_accumulate(options.get("accumulate", 1), total_batch // world_size)
    by_epochs = options.max_iter is None
    if options.max_iter is None and options.epochs <= 0:
        raise ConfigError(f"train.epochs={options.epochs} must be positive: set it to a number above 0.")
    if options.max_iter is None and not dataset_names(loader):
        raise ConfigError("dataloader.train names no data set to count epochs by: set dataset, or train.max_iter.")
    data = read_training_data(loader)
    per_epoch = max(1, data.images // total_batch)
    if options.max_iter is None:
        options.max_iter = max(1, math.floor(options.epochs * per_epoch + 1e-6))
    _settle_evaluation(options, per_epoch)
    if options.checkpointer.period is None:
        options.checkpointer.period = per_epoch
    return RunLength(data, total_batch, per_epoch, int(options.max_iter), by_epochs, accumulate)


def _settle_evaluation(options: DictConfig, per_epoch: int) -> None:
    """Fill in eval_period, from eval_epochs if that is set; raise ConfigError if both are, or for no positive number.

    eval_epochs becomes None, so that the saved config says it once.
    """
    epochs = options.get("eval_epochs", None)
    if epochs is None:
        if options.eval_period is None:
            options.eval_period = per_epoch
        return
    if options.eval_period is not None:
        raise ConfigError(
            f"train.eval_epochs={epochs} and train.eval_period={options.eval_period} both say when to evaluate: set "
            "one of them to null."
        )
    if isinstance(epochs, bool) or not isinstance(epochs, (int, float)) or epochs <= 0:
        raise ConfigError(
            f"train.eval_epochs={epochs} must be a number above 0: train.eval_period=0 evaluates at the end only."
        )
    options.eval_period = max(1, round(epochs * per_epoch))
    options.eval_epochs = None
