"""The layers of DETR's decoder. A layer takes contents, places and the image's tokens, and returns new contents."""

from typing import Protocol

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.structures import Memory, QueryPlace


class QueryLayer(Protocol):
    """What a decoder asks of its layers."""

    def __call__(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """x (B, Q, C) -> (B, Q, C)."""


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the image and feed-forward block, each followed by its norm (DETR, supplement
    A.3).
    """

    self_attn: nn.Module  # a subclass may have others
    cross_attn: nn.Module

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        dropout: float = 0.1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.cross_attn = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.cross_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, ffn_dim=ffn_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """x (B, Q, C) -> (B, Q, C). Raises `ConfigError` where the queries have no positions."""
        x = self.self_attn_norm(x + self.dropout(self._attend_queries(x, place)))
        x = self.cross_attn_norm(x + self.dropout(self._attend_image(x, place, memory)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def _attend_queries(self, x: Tensor, place: QueryPlace) -> Tensor:
        """Self-attention of each run of queries: runs join the batch, which is less work than a mask over all pairs."""
        runs = (len(x), place.runs)
        x, position = (value.unflatten(1, (place.runs, -1)).flatten(0, 1) for value in (x, position_of(place)))
        return self._attend_each_other(x, position, place.blocked).unflatten(0, runs).flatten(1, 2)

    def _attend_each_other(self, x: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        with_position = x + position
        return self.self_attn(with_position, with_position, x, blocked=blocked)

    def _attend_image(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        return self.cross_attn(x + position_of(place), memory.placed, memory.tokens, padding=memory.padding)


class PreNormDecoderLayer(DecoderLayer):
    """The same with each norm before its block and an un-normed residual (DETR's `--pre_norm`)."""

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """x (B, Q, C) -> (B, Q, C)."""
        x = x + self.dropout(self._attend_queries(self.self_attn_norm(x), place))
        x = x + self.dropout(self._attend_image(self.cross_attn_norm(x), place, memory))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


def position_of(place: QueryPlace) -> Tensor:
    """The positions of the queries, (B, Q, C). Raises `ConfigError` where they have none."""
    if place.position is None:
        raise ConfigError(
            "model.decoder.query_position is null, which leaves queries the positions they bring, but those of "
            "model.queries bring none: give it a part that makes them of references, as ReferencePosition in DINO"
        )
    return place.position
