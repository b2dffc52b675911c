"""The loss on test data, beside the metrics of an evaluation."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from align_detr.errors import ConfigError
from align_detr.evaluation.evaluate import PREFIX, VALIDATION_LOSS, EvaluationSet
from align_detr.layers.reduce import within_process


class LossEvaluator(DatasetEvaluator):
    """The mean losses of `model` over the images of an evaluation, by the names of training with PREFIX; their sum is
    VALIDATION_LOSS.

    The model computes them as in training, but without gradients, dropout and drop path, with the statistics of its
    batch norms, and with the same random numbers for every batch (of denoising and of sampling), whose generators go on
    as if nothing had been drawn. Each batch has its own number of objects as normaliser, so that sharing the images
    among processes changes nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Forget the losses of an earlier evaluation."""
        self._sums: dict[str, float] = defaultdict(float)
        self._images = 0

    @torch.no_grad()
    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Any]) -> None:
        """Add the losses of a batch, whose inputs have `instances`; the detections are not looked at."""
        with _as_in_training(self.model), same_random_numbers(), within_process(), EventStorage():
            losses = self.model(inputs)
        values = torch.stack([loss.float() for loss in losses.values()]).tolist()
        for name, value in zip(losses, values, strict=True):
            self._sums[name] += value * len(inputs)
        self._images += len(inputs)

    def evaluate(self) -> dict[str, float]:
        """Return the means over the images of all processes; {} on all but the main process and without images."""
        parts = comm.gather((dict(self._sums), self._images), dst=0)
        images = sum(count for _, count in parts)
        if not images:
            return {}
        names = dict.fromkeys(name for sums, _ in parts for name in sums)
        means = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / images for name in names}
        return {VALIDATION_LOSS: sum(means.values()), **{PREFIX + name: value for name, value in means.items()}}


def with_losses(sets: Sequence[EvaluationSet], model: nn.Module) -> list[EvaluationSet]:
    """Return the sets, of which each evaluation has the losses of `model` as well.

    Raise ConfigError for a set whose inputs have no boxes; `build_evaluation_sets(..., boxes=True)` asks for them.
    """
    result = []
    for one in sets:
        images = getattr(one.loader, "dataset", None)
        if images is not None and len(images) and "instances" not in images[0]:
            raise ConfigError(
                f"train.validation_loss needs the boxes of '{one.name}', which dataloader.test.mapper leaves out: use "
                "DetrMapper there, or set train.validation_loss=False."
            )
        evaluators = list(one.evaluator) if isinstance(one.evaluator, MutableSequence) else [one.evaluator]
        result.append(EvaluationSet(one.name, one.loader, [*evaluators, LossEvaluator(model)]))
    return result


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """Put a model into training mode but for dropout, drop path and batch norms, and every module back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = not _is_random_or_running(module)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _is_random_or_running(module: nn.Module) -> bool:
    functional = (getattr(module, name, None) for name in ("dropout", "drop_prob"))  # of attention, of timm's DropPath
    by_number = any(isinstance(value, (int, float)) for value in functional)
    return by_number or isinstance(module, (_DropoutNd, _BatchNorm, StochasticDepth))


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Start all generators at one point, and put them back in the end."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
