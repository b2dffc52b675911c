"""The decoder: queries look at each other and at the image, layer after layer."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.modeling.encoder import initialize_matrices
from align_detr.structures import Memory, Predictions, QueryPart


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the image and feed-forward block, each followed by its norm (DETR, supplement
    A.3).
    """

    def __init__(self, *, embed_dim: int = 256, num_heads: int = 8, ffn_dim: int = 2048, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.cross_attn = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.cross_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, ffn_dim=ffn_dim, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, memory: Memory, keys: Tensor) -> Tensor:
        """x and position (B, Q, C), keys = tokens + position of the memory (B, S, C) -> (B, Q, C)."""
        x = self.self_attn_norm(x + self.dropout(self._attend_queries(x, position)))
        x = self.cross_attn_norm(x + self.dropout(self._attend_image(x, position, memory, keys)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def _attend_queries(self, x: Tensor, position: Tensor) -> Tensor:
        placed = x + position
        return self.self_attn(placed, placed, x)

    def _attend_image(self, x: Tensor, position: Tensor, memory: Memory, keys: Tensor) -> Tensor:
        return self.cross_attn(x + position, keys, memory.tokens, padding=memory.padding)


class PreNormDecoderLayer(DecoderLayer):
    """The same with each norm before its block and an un-normed residual (DETR's `--pre_norm`)."""

    def forward(self, x: Tensor, position: Tensor, memory: Memory, keys: Tensor) -> Tensor:
        """x and position (B, Q, C), keys = tokens + position of the memory (B, S, C) -> (B, Q, C)."""
        x = x + self.dropout(self._attend_queries(self.self_attn_norm(x), position))
        x = x + self.dropout(self._attend_image(self.cross_attn_norm(x), position, memory, keys))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Decoder(nn.Module):
    """`num_layers` copies of `layer`, each with its own weights; every layer's output passes the one `norm` and the
    head.
    """

    def __init__(self, *, layer: nn.Module, num_layers: int, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm
        initialize_matrices(self)

    def forward(self, queries: Sequence[QueryPart], memory: Memory, head: nn.Module) -> dict[str, Predictions]:
        """The parts of the queries, decoded together -> a prediction set for each, under the part's name, one row a
        layer.
        """
        hidden = self.decode(queries, memory)
        predictions, start = {}, 0
        for part in queries:
            stop = start + part.content.shape[1]
            predictions[part.name] = head(hidden[:, :, start:stop])
            start = stop
        return predictions

    def decode(self, queries: Sequence[QueryPart], memory: Memory) -> Tensor:
        """The normed output of every layer for the queries of all parts: (R, B, Q, C)."""
        x = torch.cat([part.content for part in queries], dim=1)
        position = torch.cat([part.position for part in queries], dim=1)
        keys = memory.tokens + memory.position  # the same for all layers
        outputs = []
        for layer in self.layers:
            x = layer(x, position, memory, keys)
            outputs.append(self.norm(x))
        return torch.stack(outputs)
