"""Where a run starts: at initial weights, or after the newest checkpoint of its output folder."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.data.build import set_timeout
from align_detr.data.datasets import known_classes
from align_detr.engine.class_names import check_trained_classes
from align_detr.engine.run_length import RunLength
from align_detr.engine.run_state import continued, start_data
from align_detr.engine.start import seed
from align_detr.engine.trainer import Trainer
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunStart:
    """The first iteration, and of a resumed run ({}: a new one) the state of its trainer and its `RunState`."""

    iteration: int
    trainer: dict[str, Any]
    saved: dict[str, Any]

    def build_loader(self, cfg: DictConfig) -> Iterable[Any]:
        """Build the training loader, which begins with the batch of the first iteration.

        Loaders and checkpoints whose place and generators are not known go on from a seed of that iteration.
        """
        seed(cfg.train.seed, self.iteration)
        loader = instantiate(cfg.dataloader.train)
        set_timeout(loader, cfg.train.data_timeout)
        start_data(loader, self.iteration, cfg.train.max_iter, self.saved)
        return loader

    def restore(self, trainer: Trainer, max_iter: int) -> None:
        """Give a resumed run's trainer its state; leave that of a new run as it is."""
        if self.trainer:
            trainer.load_state_dict(self.trainer)
            logger.info("Resuming at iteration %d of %d.", self.iteration, max_iter)


def load_start(checkpointer: Checkpointer, options: DictConfig, length: RunLength, *, resume: bool) -> RunStart:
    """Load the newest checkpoint when resuming, else the initial weights; return where the run starts.

    Raise ConfigError for a checkpoint that cannot be resumed, and if nothing is left to train.
    """
    state = _load_newest(checkpointer, length.data.names) if resume else {}
    if not state:
        _load_initial_weights(checkpointer, options, length.data.names)
        return RunStart(0, {}, {})
    iteration = length.start_after(state["trainer"]["iteration"] + 1, state.get("length", {}))
    return RunStart(iteration, state["trainer"], continued(state, iteration))


def _load_newest(checkpointer: Checkpointer, dataset_names: Sequence[str]) -> dict[str, Any]:
    """Load the newest sound checkpoint; return what it holds beside the weights, or {} if there is none."""
    path = checkpointer.newest_sound()
    if not path:
        logger.warning("%s has no checkpoint to resume: starting at iteration 0.", checkpointer.save_dir)
        return {}
    state = checkpointer.load(path)
    if "trainer" not in state:
        raise ConfigError(f"{path} holds weights only and cannot be resumed: set train.init_checkpoint to it instead.")
    checkpointer.require_complete()
    check_trained_classes(state.get("classes", {}).get("names"), path, dataset_names)
    return state


def _load_initial_weights(checkpointer: Checkpointer, options: DictConfig, dataset_names: Sequence[str]) -> None:
    if options.init_checkpoint:
        weights = checkpointer.read(options.init_checkpoint, averaged=options.get("init_averaged", True))
        checkpointer.load_weights(weights, class_names=known_classes(dataset_names[0]) if dataset_names else None)
