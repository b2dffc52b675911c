"""The feed-forward block by blocks of tokens against PyTorch's operations, and where it is used."""

import pytest
import torch
from torch import Tensor, nn

from align_detr.layers import feed_forward as module
from align_detr.layers.attention import FeedForward
from align_detr.layers.dropout import Dropout


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Blocks of three tokens of a small layer; returned: the shapes of what the blocks have computed."""
    monkeypatch.setattr(module, "_NUMBERS", 3 * 16)
    monkeypatch.setattr(module, "_LEAST", 10 * 16)
    shapes: list[torch.Size] = []
    blocks = module._blocks
    monkeypatch.setattr(
        module, "_blocks", lambda tokens, hidden: shapes.append(torch.Size([tokens, hidden])) or blocks(tokens, hidden)
    )
    return shapes


def _gradients(block: FeedForward, x: Tensor, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.square().sum(), [x, *block.parameters()]))


def test_values_and_gradients_are_those_of_the_operations(calls: list[torch.Size]) -> None:
    """Ten tokens in blocks of three, the last of one: values and all five gradients agree with the plain formula."""
    torch.manual_seed(0)
    block = FeedForward(embed_dim=8, ffn_dim=16, dropout=0.0)
    x = torch.randn(2, 5, 8, requires_grad=True)
    out = block(x)
    plain = block.linear2(block.linear1(x).relu())
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(_gradients(block, x, out), _gradients(block, x, plain))
    assert calls == [(10, 16), (10, 16)]  # forward and backward


def test_evaluation_ignores_dropout(calls: list[torch.Size]) -> None:
    """With dropout the operations compute in training, and the blocks where dropout does nothing."""
    block = FeedForward(embed_dim=8, ffn_dim=16, dropout=0.5)
    x = torch.randn(10, 8)
    block(x)
    assert not calls
    block.eval()(x)
    assert len(calls) == 1


@pytest.mark.parametrize("case", ["few tokens", "no gradient", "autocast", "float64", "GELU", "other layer"])
def test_operations_compute_everything_else(case: str, calls: list[torch.Size]) -> None:
    """The blocks leave to PyTorch's operations what they are not made for."""
    block = FeedForward(embed_dim=8, ffn_dim=16, activation=nn.GELU() if case == "GELU" else None)
    x = torch.randn(9 if case == "few tokens" else 10, 8)
    if case == "float64":
        block, x = block.double(), x.double()
    if case == "other layer":
        block.linear2 = nn.Sequential(block.linear2, Dropout(0.0))  # type: ignore[assignment]  # a wrapper, as adapters do
    with torch.set_grad_enabled(case != "no gradient"), torch.autocast("cpu", enabled=case == "autocast"):
        assert block(x).shape == x.shape
    assert not calls
