"""How much of training is over, for the parts of a model that change in its course."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from detectron2.engine import HookBase
from torch import nn


@runtime_checkable
class FollowsTraining(Protocol):
    """The interface of a part that changes in the course of training. `progress` is the share that it was told last."""

    progress: float

    def follow(self, progress: float) -> None:
        """Take the state of an iteration before which the share `progress`, from 0 to 1, of training is over."""


class TrainingProgress(HookBase):
    """Telling the `parts` of a model how much of training's `max_iter` iterations is over, before each of them.

    That follows from the iteration alone, so there is no state to save: a resumed run tells them anew.
    """

    def __init__(self, *, parts: list[FollowsTraining], max_iter: int) -> None:
        self.parts = parts
        self.max_iter = max_iter

    def before_step(self) -> None:
        """Tell the parts."""
        for part in self.parts:
            part.follow(self.trainer.iter / self.max_iter)


def training_progress(models: list[nn.Module], max_iter: int) -> TrainingProgress | None:
    """Return the hook for the parts of all `models`, or None if none of them changes."""
    parts = [part for model in models for part in following_parts(model)]
    return TrainingProgress(parts=parts, max_iter=max_iter) if parts else None


def following_parts(model: nn.Module) -> Iterator[FollowsTraining]:
    """Yield the parts of a model that change in the course of training."""
    return (part for part in model.modules() if isinstance(part, FollowsTraining))


def tell_progress(model: nn.Module, progress: float) -> None:
    """Bring the parts of a model to where the share `progress` of training is over."""
    for part in following_parts(model):
        part.follow(progress)


def progress_told(model: nn.Module) -> float:
    """Return the share of training that the parts of a model were told last; 0 without any."""
    return next((part.progress for part in following_parts(model)), 0.0)
