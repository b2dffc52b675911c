"""Detectors whose weights are float16 or bfloat16: `model.half()`, `model.to(torch.bfloat16)`."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)
Forward = TypeVar("Forward", bound=Callable[..., Any])


def in_precision_of_weights(forward: Forward) -> Forward:
    """Let a module's method run under autocast to the type of the weights if that is float16 or bfloat16.

    Matrix products then take the type of the weights, and positions, references, boxes and scores stay float32. With
    other weights nothing changes.
    """

    @functools.wraps(forward)
    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        weight = next(self.parameters())
        if weight.dtype not in HALF:
            return forward(self, *args, **kwargs)
        with torch.autocast(weight.device.type, dtype=weight.dtype):
            return forward(self, *args, **kwargs)

    return run  # type: ignore[return-value]  # of the same signature


class Float32PixelStatistics(nn.Module):
    """Detector whose buffers `pixel_mean` and `pixel_std` stay float32 when its weights become float16 or bfloat16,
    which would round a mean of 123.7 by up to 0.2.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Float32PixelStatistics":
        """Move or cast the model as `nn.Module` does."""
        mean, std = self.pixel_mean, self.pixel_std
        super()._apply(fn, recurse)
        if self.pixel_mean.dtype in HALF:
            self.pixel_mean, self.pixel_std = (x.float().to(self.pixel_mean.device) for x in (mean, std))
        return self
