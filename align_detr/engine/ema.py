"""The exponential moving average of the weights."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError


class ModelEMA:
    """A copy of a model whose parameters follow the original's as an exponential moving average.

    After update n (n = 1, 2, ...): average <- average + (1 - d) (parameter - average) with
    d = min(decay, (1 + n) / (10 + n)), so that the initial weights fade early. Buffers are copied.
    `module` is the averaged model, in evaluation mode and without gradients; it is what gets evaluated.
    """

    def __init__(self, *, model: nn.Module, decay: float = 0.9998) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"train.ema.decay is {decay!r}: set it to at least 0 and less than 1.")
        self.decay = float(decay)
        self.num_updates = 0
        self.module = deepcopy(model).eval().requires_grad_(False)
        # parameters and registered buffers stay the same objects for a model's life: the lists are made once
        self._pairs = _pair(self.module.named_parameters(), model.named_parameters())
        self._buffers = _pair(self.module.named_buffers(), model.named_buffers())

    @torch.no_grad()
    def reset(self) -> None:
        """Set the average to the model's present weights, as after loading a checkpoint."""
        self.num_updates = 0
        for averages, sources in (self._pairs, self._buffers):
            _copy(averages, sources)

    @torch.no_grad()
    def update(self) -> None:
        """Fold the model's present weights into the average."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, sources = self._pairs
        if averages:
            torch._foreach_lerp_(averages, sources, 1.0 - decay)
        _copy(*self._buffers)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates and the averaged weights."""
        return {"num_updates": self.num_updates, "model": dict(self.module.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; raise ConfigError if the weights belong to another model."""
        try:
            self.module.load_state_dict(state["model"])
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise ConfigError(
                f"The averaged weights of the checkpoint do not fit this model ({text}): use the config it had."
            ) from error
        self.num_updates = int(state["num_updates"])


def _pair(
    averages: Iterable[tuple[str, Tensor]], sources: Iterable[tuple[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return two lists of tensors in the same order, matched by name."""
    by_name = dict(sources)
    named = list(averages)
    return [tensor for _, tensor in named], [by_name[name] for name, _ in named]


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
