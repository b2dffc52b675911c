"""Dropout whose forward pass takes a quarter of PyTorch's time on a CPU, and attention with dropout of its weights.

On a CPU PyTorch draws one 53-bit number per element, in one thread. Here an element
takes 16 bits of PyTorch's generator, and the mask that the backward pass keeps one byte instead of four. The
probability is rounded to a multiple of 1 / 65536 (0.1 becomes 0.100006) and the scale follows it, so that the mean of
an element is exactly what it is without dropout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_VALUES = 1 << 16  # of 16 bits


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Set elements to 0 with probability `p` in training and scale the others: (...) -> (...)."""
        return dropout(x, self.p if self.training else 0.0)


def dropout(x: Tensor, p: float) -> Tensor:
    """Set elements of `x` to 0 with probability `p` and scale the others by the inverse of the rest: (...) -> (...).

    Elsewhere than on a CPU, and in compiled graphs, this is PyTorch's function. Raise ValueError if `p` is not in
    [0, 1].
    """
    if p == 0.0:
        return x
    if not _is_ours(x, p):
        return F.dropout(x, p)
    return _Masked.apply(x, keep_mask(x.shape, p), _scale(p))


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
    """Attend from query (B, H, Q, D) to key (B, H, S, D) and value (B, H, S, E) -> (B, H, Q, E), as PyTorch's
    `scaled_dot_product_attention`.

    `mask` broadcasts to (B, H, Q, S): True where a query may attend, which must be somewhere, or a number that is added
    to the logit. With dropout on a CPU, where PyTorch has no fused kernel, the weights are computed here.
    """
    if dropout_p == 0.0 or not _is_ours(query, dropout_p):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout_p)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, Q, S)
    dtype = logits.dtype  # under autocast another than the values'
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    weights = logits.softmax(-1).to(dtype)
    return _MaskedProduct.apply(weights, value.to(dtype), keep_mask(weights.shape, dropout_p), _scale(dropout_p))


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """Return 1 where an element stays, with probability 1 - `p`, and otherwise 0: int8 on the CPU."""
    count = shape.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device="cpu").random_(-(1 << 63), None)
    bits = numbers.view(torch.int16)[:count]
    least = _dropped(p) - _VALUES // 2  # of the numbers that stay
    # a clamp takes a tenth of a comparison's time
    return bits.clamp_(least - 1, least).sub_(least - 1).to(torch.int8).view(shape)


def _is_ours(x: Tensor, p: float) -> bool:
    """Return whether elements are dropped here: on a CPU, in eager mode, where 16 bits can hold the probability."""
    return x.device.type == "cpu" and 0 < _dropped(p) < _VALUES and not torch.compiler.is_compiling()


def _dropped(p: float) -> int:
    """Return how many of the numbers of 16 bits stand for an element that is dropped."""
    return round(p * _VALUES)


def _scale(p: float) -> float:
    return _VALUES / (_VALUES - _dropped(p))


class _Masked(torch.autograd.Function):
    """The product of a tensor, a mask of 0 and 1, and a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return _factors(mask, scale, x.dtype).mul_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        return grads[0] * _factors(mask, ctx.scale, grads[0].dtype), None, None


class _MaskedProduct(torch.autograd.Function):
    """The matrix product of weights (B, H, Q, S), masked and scaled, and values (B, H, S, E).

    The masked weights are computed again in the backward pass instead of kept.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(weights, value, mask)
        ctx.scale = scale
        return _factors(mask, scale, weights.dtype).mul_(weights) @ value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, value, mask = ctx.saved_tensors
        factors = _factors(mask, ctx.scale, weights.dtype)
        of_weights = (grad @ value.transpose(-1, -2)).mul_(factors)
        return of_weights, factors.mul_(weights).transpose(-1, -2) @ grad, None, None


def _factors(mask: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return `mask` times `scale` in the type of the product."""
    return mask.to(dtype).mul_(scale)
