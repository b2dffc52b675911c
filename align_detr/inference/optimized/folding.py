"""Frozen batch norms as part of the convolutions before them."""

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import Tensor, nn

LINEAR = ("torch", "detectron2", "align_detr")
"""Packages whose convolutions give their weight times their input; those of others may change the weight first."""
FIXED = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm)
"""The norms that in evaluation multiply and shift each channel by fixed numbers, and do nothing else."""


def fold_norms(model: nn.Module) -> None:
    """Fold, in place, each batch norm that follows a convolution into the convolution's weight and bias.

    These are the norms of detectron2's `Conv2d` and those behind a convolution in a `Sequential`. A norm of
    batches is folded with its running statistics, as in evaluation.
    """
    for module in model.modules():
        if isinstance(module, Conv2d) and _is_linear(module) and _is_foldable(module.norm):
            _fold(module, module.norm)
            module.norm = None
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_sequence(module)


def _fold_sequence(sequence: nn.Sequential) -> None:
    """Fold the norms of a sequence; an identity takes the place of each, so that indices stay."""
    before: nn.Module | None = None
    for name, module in sequence.named_children():
        if isinstance(before, nn.Conv2d) and _is_linear(before) and _ends_with_bias(before) and _is_foldable(module):
            _fold(before, module)
            setattr(sequence, name, nn.Identity())
        before = module


def _is_linear(conv: nn.Conv2d) -> bool:
    """Say whether a convolution is of LINEAR and takes its weight as it is, without parametrization or hook."""
    of_known = type(conv).__module__.partition(".")[0] in LINEAR
    return of_known and not hasattr(conv, "parametrizations") and not conv._forward_pre_hooks


def _ends_with_bias(conv: nn.Conv2d) -> bool:
    """Say whether nothing follows within a convolution, as norm and activation do in detectron2's."""
    return getattr(conv, "norm", None) is None and getattr(conv, "activation", None) is None


def _is_foldable(norm: object) -> bool:
    """Say whether a norm is of FIXED and has statistics; a subclass, such as timm's with a ReLU, may be more."""
    return type(norm) in FIXED and getattr(norm, "running_mean", None) is not None


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: Any) -> None:
    """Give a convolution the weight and the bias that include the norm, computed in float64."""
    scale, shift = _scale_and_shift(norm)
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the factors and summands (channels,) of a norm, float64."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()
