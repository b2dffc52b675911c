"""Convolutions and batch norms of maps that are one value wide, as the coarsest levels of small images are."""

from collections.abc import Callable

import torch
from detectron2.utils import comm
from torch import Tensor, nn


def convolve_narrow(conv: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a convolution of stride 2 to a map (B, C, h, w), under the CPU's autocast in float32 if w is 1.

    There the gradient of the columns of a kernel that meet nothing but padding is not set, and any number may stand in
    it (PyTorch 2.14, bfloat16); it has to be 0.
    """
    if not (torch.is_autocast_enabled("cpu") and x.device.type == "cpu" and x.shape[-1] == 1):
        return conv(x)
    with torch.autocast("cpu", enabled=False):
        return conv(x.float())


def normalize_one_value(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm to (B, C, h, w); a batch norm of one value per channel, which has no variance, as in evaluation.

    PyTorch refuses it in training. Several processes, which share their statistics, have more values.
    """
    one_value = x.numel() == x.shape[1] and norm.training and comm.get_world_size() == 1
    if not one_value or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return norm(x)
    try:
        norm.eval()
        return norm(x)
    finally:
        norm.train()


class StridedConv2d(nn.Conv2d):
    """A convolution of stride 2 whose gradient is right for maps of any size (see `convolve_narrow`)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        return convolve_narrow(super().forward, x)
