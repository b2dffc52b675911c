"""Encoder and decoder layers with row-column decoupled attention, and the positions that they read."""

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.decoder_layers import DecoderLayer
from align_detr.modeling.encoder import EncoderLayer
from align_detr.projects.anchor_detr.attention import RowColumnAttention
from align_detr.structures import Memory, QueryPlace


class RowColumnPosition(nn.Module):
    """Positions of the queries: encoded points for self-attention, encoded coordinates for cross-attention.

    `RowColumnEncoding.encode_queries` makes both.
    """

    def forward(
        self, x: Tensor, position: Tensor, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Split position (B, Q, 3 C) into (B, Q, C) of the points and (B, Q, 2 C) of x and y."""
        return position.split([x.shape[-1], 2 * x.shape[-1]], dim=-1)


class RowColumnEncoderLayer(EncoderLayer):
    """Row-column decoupled self-attention and feed-forward block, each followed by its norm (Wang et al. 2022).

    `average_padding` is that of `RowColumnAttention`, whose weights have no dropout.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        average_padding: bool = False,
    ) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
        self.self_attn = RowColumnAttention(embed_dim=embed_dim, num_heads=num_heads, average_padding=average_padding)

    def _attend(self, x: Tensor, memory: Memory) -> Tensor:
        row, column = (x + position for position in memory.position.chunk(2, dim=-1))
        return self.self_attn(row, column, row, column, x, shape=memory.shapes[0], padding=memory.padding)


class RowColumnDecoderLayer(DecoderLayer):
    """Ordinary self-attention, row-column decoupled cross-attention and feed-forward block (Wang et al. 2022).

    Each is followed by its norm. `average_padding` is that of `RowColumnAttention`.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        average_padding: bool = False,
    ) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
        self.cross_attn = RowColumnAttention(embed_dim=embed_dim, num_heads=num_heads, average_padding=average_padding)

    def _attend_image(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        if place.sine is None:
            raise ConfigError(
                "The queries have no encoded coordinates, which RowColumnDecoderLayer reads: set "
                "model.decoder.query_position to a RowColumnPosition."
            )
        queries = (x + position for position in place.sine.chunk(2, dim=-1))
        keys = (memory.tokens + position for position in memory.position.chunk(2, dim=-1))
        return self.cross_attn(*queries, *keys, memory.tokens, shape=memory.shapes[0], padding=memory.padding)
