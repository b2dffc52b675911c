"""Length of a run: the numbers of a config that follow from the size of the training data."""

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from align_detr.data import count_images
from align_detr.errors import ConfigError


@dataclass(frozen=True)
class RunLength:
    """How long a run is: images of the training set, images a batch over all processes, iterations."""

    images: int
    total_batch: int
    iterations_per_epoch: int
    max_iter: int

    @property
    def epochs(self) -> float:
        """Passes over the training set."""
        return self.max_iter / self.iterations_per_epoch


def dataset_names(loader: DictConfig) -> list[str]:
    """Return the data sets a loader's config names: `dataset` (ours), `names`, or `dataset.names` (detectron2's)."""
    node = loader.get("dataset", None)
    if node is None:
        node = loader.get("names", None)
    if isinstance(node, DictConfig):
        node = node.get("names", None)
    if node is None:
        return []
    return [node] if isinstance(node, str) else [str(name) for name in node]


def check_batch(cfg: DictConfig, world_size: int) -> int:
    """Return the images a batch over all processes; raises ConfigError unless all processes get the same number."""
    total = cfg.dataloader.train.get("total_batch_size", None)
    if total is None:
        raise ConfigError("The config has no dataloader.train.total_batch_size, the images a batch over all processes.")
    if not isinstance(total, int) or total < 1:
        raise ConfigError(f"dataloader.train.total_batch_size={total} must be positive, and a whole number of images.")
    if total % world_size:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total} cannot be shared equally by {world_size} processes: "
            f"set it to a multiple of {world_size}."
        )
    return int(total)


def resolve_length(cfg: DictConfig, world_size: int) -> RunLength:
    """Fill in max_iter, eval_period and checkpointer.period of `cfg.train` where they are None, and return the length.

    An epoch has max(1, images // images a batch) iterations. Raises ConfigError if the epochs are not positive, or if
    the training data's size is not known and max_iter is not given.
    """
    total_batch = check_batch(cfg, world_size)
    names = dataset_names(cfg.dataloader.train)
    images = count_images(names) if names else 0
    if not names and cfg.train.max_iter is None:
        raise ConfigError("dataloader.train names no data set to count epochs by: set dataset, or train.max_iter.")
    per_epoch = max(1, images // total_batch)
    if cfg.train.max_iter is None:
        if cfg.train.epochs <= 0:
            raise ConfigError(f"train.epochs={cfg.train.epochs} must be positive.")
        cfg.train.max_iter = max(1, math.floor(cfg.train.epochs * per_epoch + 1e-6))
    if cfg.train.eval_period is None:
        cfg.train.eval_period = per_epoch
    if cfg.train.checkpointer.period is None:
        cfg.train.checkpointer.period = per_epoch
    return RunLength(images, total_batch, per_epoch, int(cfg.train.max_iter))
