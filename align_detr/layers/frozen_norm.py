"""Convolutions that take a frozen batch norm into their weights."""

import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn


def folded(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the one convolution that is `conv` followed by `norm`, with the gradient of `conv`."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C,)
    bias = norm.bias - norm.running_mean * scale
    return conv.weight * scale[:, None, None, None], bias if conv.bias is None else bias + conv.bias * scale


class FoldedConv2d(Conv2d):
    """detectron2's convolution with norm and activation, which folds a frozen batch norm each time it is used.

    That multiplies the weights, which are few, instead of the map, in both passes, and keeps no map for the norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise and activate: (B, C, h, w) -> (B, C', h', w')."""
        if not isinstance(self.norm, FrozenBatchNorm2d):
            return super().forward(x)
        weight, bias = folded(self, self.norm)
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)


def fold_frozen_norms(module: nn.Module) -> None:
    """Let all of detectron2's convolutions in `module` fold their frozen batch norms; names and weights stay."""
    for child in module.modules():
        if type(child) is Conv2d:
            child.__class__ = FoldedConv2d
