"""Attention against torch's module and a formula written out."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from align_detr.layers.attention import MultiHeadAttention


@pytest.fixture
def modules() -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours = MultiHeadAttention(embed_dim=12, num_heads=3)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("masked", ["nothing", "padding", "blocked", "both"])
def test_equals_torch(modules: tuple[MultiHeadAttention, nn.MultiheadAttention], masked: str) -> None:
    ours, theirs = modules
    query, key, value = torch.randn(2, 4, 12), torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]]) if masked in ("padding", "both") else None
    blocked = torch.rand(4, 5).gt(0.6) if masked in ("blocked", "both") else None
    if blocked is not None:
        blocked[:, 0] = False
    expected, _ = theirs(query, key, value, key_padding_mask=padding, attn_mask=blocked, need_weights=False)
    assert_close(ours(query, key, value, padding=padding, blocked=blocked), expected, rtol=1e-5, atol=1e-6)


def test_self_attention_equals_torch(modules: tuple[MultiHeadAttention, nn.MultiheadAttention]) -> None:
    ours, theirs = modules
    with_position, x = torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    expected, _ = theirs(with_position, with_position, x, need_weights=False)
    assert_close(ours(with_position, with_position, x), expected, rtol=1e-5, atol=1e-6)


def test_a_padded_key_has_no_influence(modules: tuple[MultiHeadAttention, nn.MultiheadAttention]) -> None:
    ours, _ = modules
    query, key, value = torch.randn(1, 2, 12), torch.randn(1, 3, 12), torch.randn(1, 3, 12)
    padding = torch.tensor([[False, False, True]])
    before = ours(query, key, value, padding=padding)
    key[:, 2], value[:, 2] = 100.0, -100.0
    assert_close(ours(query, key, value, padding=padding), before, rtol=0, atol=0)


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match="embed_dim 10 is not a multiple of num_heads 4"):
        MultiHeadAttention(embed_dim=10, num_heads=4)
