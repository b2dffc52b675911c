"""Multi-head attention on PyTorch's fused kernel, and the feed-forward block between attentions."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.layers.dropout import Dropout, attend
from align_detr.layers.feed_forward import is_faster, relu_mlp


class ProjectedAttention(nn.Module):
    """Base of the attentions with `num_heads` heads whose logits are products of projected queries and keys.

    The three input projections are one parameter, in the order query, key, value, as in `torch.nn.MultiheadAttention`,
    so that official DETR weights load without splitting and Xavier's bound is the published one. Raise ValueError if
    `embed_dim` is not a multiple of `num_heads`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}: change one of them.")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project query (B, Q, C), key and value (B, S, C), and split each into heads: (B, H, Q or S, D)."""
        c = value.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:  # self-attention: one matrix product for both
            q, k = F.linear(query, weight[: 2 * c], bias[: 2 * c]).chunk(2, dim=-1)
        else:
            q, k = F.linear(query, weight[:c], bias[:c]), F.linear(key, weight[c : 2 * c], bias[c : 2 * c])
        v = F.linear(value, weight[2 * c :], bias[2 * c :])
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        return q, k, v


class MultiHeadAttention(ProjectedAttention):
    """Scaled dot-product attention with `num_heads` heads (Vaswani et al. 2017, section 3.2.2)."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, padding: Tensor | None = None, blocked: Tensor | None = None
    ) -> Tensor:
        """Attend from query (B, Q, C) to key and value (B, S, C) -> (B, Q, C).

        `padding` (B, S) is True for keys to ignore; `blocked` (Q, S) is True where a query may not attend to a key, or
        numbers that are added to the logits (see `attention_mask`). A query must keep at least one key.
        """
        q, k, v = self._project(query, key, value)  # (B, H, Q, D), (B, H, S, D), (B, H, S, D)
        mask = None if blocked is None else attention_mask(blocked, q.dtype)  # broadcasts to (B, H, Q, S)
        if padding is not None:
            mask = without_padding(mask, padding)
        out = attend(q, k, v, mask=mask, dropout_p=self.dropout if self.training else 0.0)  # (B, H, Q, D)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(
        self, chosen: slice, query: Tensor, key: Tensor, value: Tensor, *, padding: Tensor | None = None
    ) -> Tensor:
        """Return the weights that `forward` gives the keys for the `chosen` queries: (B, H, q, S) float32."""
        q, k, _ = self._project(query[:, chosen], key, value)
        return attention_weights(q, k, None if padding is None else ~padding[:, None, None])


def attention_mask(blocked: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what `scaled_dot_product_attention` takes as mask: True where a query may attend to a key, for a bool
    `blocked` that is True where it may not; numbers, which are added to the logits, in the `dtype` of the queries.
    """
    return ~blocked if blocked.dtype == torch.bool else blocked.to(dtype)


def without_padding(mask: Tensor | None, padding: Tensor) -> Tensor:
    """Return a mask of `scaled_dot_product_attention` without the keys of `padding` (B, S)."""
    inside = ~padding[:, None, None, :]
    if mask is None:
        return inside
    return mask & inside if mask.dtype == torch.bool else mask.masked_fill(~inside, -torch.inf)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax weights that `scaled_dot_product_attention` keeps to itself: query (B, H, Q, D), key
    (B, H, S, D), and `mask`, which broadcasts to (B, H, Q, S), True where a query may attend, or a number that is added
    to the logit -> (B, H, Q, S) float32.
    """
    with torch.autocast(query.device.type, enabled=False):
        logits = query.float() * query.shape[-1] ** -0.5 @ key.float().transpose(-1, -2)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()
        return logits.softmax(-1)


class FeedForward(nn.Module):
    """Linear, activation, dropout, linear on (..., C) (Vaswani et al. 2017, section 3.3).

    `activation` is ReLU unless given; each block copies it.
    """

    def __init__(
        self, *, embed_dim: int, ffn_dim: int, dropout: float = 0.0, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dim, ffn_dim)
        self.activation = nn.ReLU() if activation is None else copy.deepcopy(activation)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(ffn_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: (..., C) -> (..., C)."""
        without_dropout = not (self.training and self.dropout.p)
        if without_dropout and type(self.activation) is nn.ReLU and is_faster(x, self.linear1, self.linear2):
            return relu_mlp(x, self.linear1, self.linear2)
        return self.linear2(self.dropout(self.activation(self.linear1(x))))
