"""Dropout: distribution, gradient, generator; attention with dropout against its formula."""

import pytest
import torch
from torch import Tensor

from align_detr.layers import dropout as module
from align_detr.layers.dropout import Dropout, attend, dropout, keep_mask


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_elements_stay_with_the_given_probability(p: float) -> None:
    """The share of elements that stay lies within five deviations of a binomial distribution."""
    torch.manual_seed(0)
    count = 400_000
    kept = float(keep_mask(torch.Size([count]), p).float().mean())
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / count) ** 0.5


def test_neighbours_are_independent() -> None:
    """The four elements of one 64-bit number stay together as often as independent ones: 0.5^4."""
    torch.manual_seed(0)
    together = keep_mask(torch.Size([100_000, 4]), 0.5).bool().all(dim=1).float().mean()
    assert abs(float(together) - 0.0625) < 5 * (0.0625 * 0.9375 / 100_000) ** 0.5


@pytest.mark.parametrize("shape", [(3, 5), (1,), (0, 4), ()])
def test_elements_are_zero_or_scaled(shape: tuple[int, ...]) -> None:
    """An element becomes 0 or itself times 65536 / (65536 - 16384), and its gradient likewise."""
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    out = dropout(x, 0.25)
    out.sum().backward()
    assert out.shape == x.shape
    assert x.grad is not None
    torch.testing.assert_close(out, x * x.grad)
    assert bool(((x.grad == 0) | (x.grad == 65536 / 49152)).all())


def test_generator_decides() -> None:
    """The same state of PyTorch's generator gives the same result; the next call another one."""
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_bounds() -> None:
    """With probability 0 and in evaluation nothing changes, with 1 all is 0, and beyond that there is none."""
    x = torch.randn(100)
    layer = Dropout(0.5)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(dropout(x, 0.0), x)
    assert not bool(dropout(x, 1.0).any())
    with pytest.raises(ValueError, match="dropout probability"):
        dropout(x, 1.5)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, factors: Tensor) -> Tensor:
    """Return attention by its formula, in float64, with the weights times `factors`."""
    logits = torch.einsum("bhqd,bhsd->bhqs", query, key) / query.shape[-1] ** 0.5 + bias
    return torch.einsum("bhqs,bhse->bhqe", logits.exp() / logits.exp().sum(-1, keepdim=True) * factors, value)


@pytest.mark.parametrize("of_logits", [False, True])
def test_attention_with_dropout(of_logits: bool) -> None:
    """Output and gradients are those of the formula with the mask that the generator gives."""
    torch.manual_seed(0)
    query, key = (torch.randn(2, 3, n, 8, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    value = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    allowed = torch.rand(2, 1, 4, 5) > 0.3
    allowed[..., 0] = True
    bias = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    if not of_logits:
        bias = torch.zeros(2, 1, 4, 5, dtype=torch.float64).masked_fill(~allowed, -torch.inf)
    torch.manual_seed(1)
    found = attend(query, key, value, mask=bias if of_logits else allowed, dropout_p=0.25)
    torch.manual_seed(1)
    factors = keep_mask(torch.Size([2, 3, 4, 5]), 0.25) * (65536 / 49152)
    expected = _attention(query, key, value, bias, factors)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    inputs = (query, key, value)
    for a, b in zip(
        torch.autograd.grad(found, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_mask_takes_a_byte_per_element() -> None:
    """What dropout keeps for the backward pass is its mask alone, of one byte per element."""
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    x = torch.randn(64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        module.dropout(x, 0.1)
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.int8, 64)]


def test_the_mask_is_on_the_cpu_whatever_the_default_device() -> None:
    x = torch.ones(8)
    with torch.device("meta"):
        assert dropout(x, 0.5).device == x.device


def test_attention_of_float32_under_autocast() -> None:
    """Autocast computes products in bfloat16, also those of inputs that no linear layer has converted."""
    query, key, value = (torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(query, key, value, dropout_p=0.5)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in (query, key, value))
