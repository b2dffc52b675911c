"""The layers of DETR's decoder: contents, positions and the image's tokens in, new contents out."""

from typing import Protocol

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.layers.dropout import Dropout
from align_detr.structures import Memory, QueryPlace


class QueryLayer(Protocol):
    """The interface of a decoder's layers."""

    def __call__(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Update the contents: x (B, Q, C) -> (B, Q, C)."""


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the image and feed-forward block, each followed by a norm (DETR, supplement
    A.3).
    """

    self_attn: nn.Module  # subclasses replace it
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
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Update the contents: x (B, Q, C) -> (B, Q, C). Raise ConfigError if the queries have no positions."""
        return self.transform(self.observe(self.exchange(x, place), place, memory))

    def exchange(self, x: Tensor, place: QueryPlace) -> Tensor:
        """Return the contents after the block of self-attention: x (B, Q, C) -> (B, Q, C)."""
        return self.self_attn_norm(x + self.dropout(self._attend_queries(x, place)))

    def observe(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Return the contents after the block of cross-attention: x (B, Q, C) -> (B, Q, C)."""
        return self.cross_attn_norm(x + self.dropout(self._attend_image(x, place, memory)))

    def transform(self, x: Tensor, ffn: nn.Module | None = None) -> Tensor:
        """Return the contents after the feed-forward block, or `ffn` in its place: x (B, Q, C) -> (B, Q, C)."""
        return self.ffn_norm(x + self.dropout((self.ffn if ffn is None else ffn)(x)))

    def _attend_queries(self, x: Tensor, place: QueryPlace) -> Tensor:
        """Let queries attend to each other inside each of the `place.runs` runs: (B, Q, C) -> (B, Q, C).

        Runs join the batch, (B, Q, C) -> (B * runs, Q / runs, C): less work than a mask over all pairs.
        """
        batch_and_runs = (x.shape[0], place.runs)
        x, position = (value.unflatten(1, (place.runs, -1)).flatten(0, 1) for value in (x, position_of(place)))
        return self._attend_each_other(x, position, place.blocked).unflatten(0, batch_and_runs).flatten(1, 2)

    def _attend_each_other(self, x: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """Let the queries x, (B, Q, C), attend to each other: (B, Q, C)."""
        with_position = x + position
        return self.self_attn(with_position, with_position, x, blocked=blocked)

    def _attend_image(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Let the queries x, (B, Q, C), attend to the image's tokens: (B, Q, C)."""
        return self.cross_attn(
            x + position_of(place), memory.tokens_and_position, memory.tokens, padding=memory.padding
        )


class PreNormDecoderLayer(DecoderLayer):
    """`DecoderLayer` with each norm before its block and residuals without norm (DETR's `--pre_norm`)."""

    def exchange(self, x: Tensor, place: QueryPlace) -> Tensor:
        """Return the contents after the block of self-attention: x (B, Q, C) -> (B, Q, C)."""
        return x + self.dropout(self._attend_queries(self.self_attn_norm(x), place))

    def observe(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Return the contents after the block of cross-attention: x (B, Q, C) -> (B, Q, C)."""
        return x + self.dropout(self._attend_image(self.cross_attn_norm(x), place, memory))

    def transform(self, x: Tensor, ffn: nn.Module | None = None) -> Tensor:
        """Return the contents after the feed-forward block, or `ffn` in its place: x (B, Q, C) -> (B, Q, C)."""
        return x + self.dropout((self.ffn if ffn is None else ffn)(self.ffn_norm(x)))


def position_of(place: QueryPlace) -> Tensor:
    """Return the positions of the queries, (B, Q, C). Raise ConfigError if they have none."""
    if place.position is None:
        raise ConfigError(
            "The queries have no positions, as model.queries provides none and model.decoder.query_position is null: "
            "set query_position to a module that computes them from references, such as ReferencePosition."
        )
    return place.position
