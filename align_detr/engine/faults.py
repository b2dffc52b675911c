"""What went wrong in a step whose loss or gradient is not finite: found by computing its batch once more."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from align_detr.engine.accumulation import split_batch
from align_detr.engine.precision import Precision
from align_detr.errors import NonFinitePrediction
from align_detr.layers.reduce import alone

_LARGEST = 5  # gradients in a report


@dataclass(frozen=True)
class RandomState:
    """States of PyTorch's generators on the host and on a model's device, from which a step can be computed again."""

    host: Tensor
    device: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> "RandomState":
        """Return the present states: two small copies, which do not wait for the device."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        """Make these the states again."""
        torch.set_rng_state(self.host)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)


@dataclass
class Findings:
    """What a second computation of a batch shows; numbers that are not finite stay what they are.

    layer: the first layer in the order of computation whose output is not finite, with its class and shape, or "".
    gradients: the largest, by the name of their parameter; a NaN is larger than anything.
    """

    losses: dict[str, float] = field(default_factory=dict)
    layer: str = ""
    error: str = ""
    gradients: dict[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether nothing was at fault this time."""
        numbers = [*self.losses.values(), *self.gradients.values()]
        return not (self.layer or self.error) and all(map(math.isfinite, numbers))


def examine(
    model: nn.Module, batch: Sequence[Any], *, precision: Precision, accumulate: int, random: RandomState
) -> Findings:
    """Compute the losses and gradients of a batch again, alone even among several processes, and look at each layer.

    Weights, buffers, generators and the numbers of training are afterwards as before; gradients are removed.
    """
    device = next(model.parameters()).device
    after, buffers = RandomState.now(device), {name: value.clone() for name, value in model.named_buffers()}
    found = Findings()
    random.restore(device)
    model.zero_grad(set_to_none=True)
    try:
        with alone(), EventStorage(), _first_not_finite(model, found):
            _compute(model, batch, precision, accumulate, found)
        found.gradients = _largest_gradients(model)
    finally:
        model.zero_grad(set_to_none=True)
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        after.restore(device)
    return found


def _compute(model: nn.Module, batch: Sequence[Any], precision: Precision, accumulate: int, found: Findings) -> None:
    parts = split_batch(batch, accumulate)
    for part in parts:
        try:
            with precision.autocast():
                losses = model(part)
        except NonFinitePrediction as error:
            found.error = str(error)
            return
        values = torch.stack([loss.float() for loss in losses.values()]) / len(parts)
        if values.requires_grad:
            values.sum().backward()
        for name, value in zip(losses, values.tolist(), strict=True):
            found.losses[name] = found.losses.get(name, 0.0) + value


@contextmanager
def _first_not_finite(model: nn.Module, found: Findings) -> Iterator[None]:
    """Note the first module whose output is not finite. A module is done after those inside of it."""
    handles = [module.register_forward_hook(_look(name, found)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _look(name: str, found: Findings) -> Callable[[nn.Module, Any, Any], None]:
    def look(module: nn.Module, arguments: Any, output: Any) -> None:
        if found.layer:
            return
        for tensor in _tensors(output):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                found.layer = f"{name or 'the model'} ({type(module).__name__}, output {tuple(tensor.shape)})"
                return

    return look


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a module's output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from _tensors(getattr(value, key))


def _largest_gradients(model: nn.Module) -> dict[str, float]:
    norms = {name: float(p.grad.float().norm()) for name, p in model.named_parameters() if p.grad is not None}
    order = sorted(norms, key=lambda name: math.inf if math.isnan(norms[name]) else norms[name], reverse=True)
    return {name: norms[name] for name in order[:_LARGEST]}
