"""The feed-forward block in training on a CPU: by blocks of tokens, so that what is between stays in the cache.

PyTorch's operations write the hidden units (2,048 per token) to memory once for the bias, the product, the ReLU, and
twice for their gradient, each time into memory that the system has to provide. Here they are written once, and their
gradient never leaves the cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_NUMBERS = 1 << 21  # hidden units per block: 8 MB
_LEAST = 1 << 22  # hidden units of all tokens from which blocks pay


def is_faster(x: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> bool:
    """Return whether `relu_mlp` is faster than PyTorch's operations on tokens x (..., C): with gradients, in float32,
    outside autocast and compiled graphs, on a CPU, where the hidden units are more than the cache holds.
    """
    return (
        x.device.type == "cpu"
        and type(linear1) is type(linear2) is nn.Linear
        and x.dtype == linear1.weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and x.shape[:-1].numel() * linear1.out_features >= _LEAST
    )


def relu_mlp(x: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> Tensor:
    """Return `linear2` of the ReLU of `linear1` of tokens: (..., C) -> (..., C'). There is no second derivative."""
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor = _ReluMLP.apply(rows, linear1.weight, linear1.bias, linear2.weight, linear2.bias)
    return out.view(*x.shape[:-1], -1)


def _blocks(tokens: int, hidden: int) -> Iterator[slice]:
    size = max(_NUMBERS // hidden, 1)
    return (slice(first, first + size) for first in range(0, tokens, size))


class _ReluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        hidden = x.new_empty(len(x), len(weight1))
        out = x.new_empty(len(x), len(weight2))
        for block in _blocks(*hidden.shape):
            inner = torch.mm(x[block], weight1.t(), out=hidden[block]).add_(bias1).relu_()
            torch.mm(inner, weight2.t(), out=out[block]).add_(bias2)
        ctx.save_for_backward(x, hidden, weight1, weight2)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of the five arguments."""
        x, hidden, weight1, weight2 = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_x, of_weight1, of_weight2 = torch.empty_like(x), torch.zeros_like(weight1), torch.zeros_like(weight2)
        of_bias1 = weight1.new_zeros(len(weight1))
        for block in _blocks(*hidden.shape):
            inner = torch.ops.aten.threshold_backward(grad[block] @ weight2, hidden[block], 0)
            torch.mm(inner, weight1, out=of_x[block])
            of_weight1.addmm_(inner.t(), x[block])
            of_weight2.addmm_(grad[block].t(), hidden[block])
            of_bias1 += inner.sum(0)
        return of_x, of_weight1, of_bias1, of_weight2, grad.sum(0)
