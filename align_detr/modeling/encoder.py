"""The transformer encoder over image tokens."""

import copy
import dataclasses

from torch import Tensor, nn

from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.layers.dropout import Dropout
from align_detr.layers.initialization import initialize_matrices
from align_detr.layers.mlp import MLP
from align_detr.structures import Memory


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each followed by a norm (DETR, supplement A.3)."""

    self_attn: nn.Module  # subclasses replace it

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
        self.ffn = FeedForward(embed_dim=embed_dim, ffn_dim=ffn_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Update the tokens: x (B, S, C), positions and padding from `memory` -> (B, S, C)."""
        x = self.self_attn_norm(x + self.dropout(self._attend(x, memory)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def _attend(self, x: Tensor, memory: Memory) -> Tensor:
        """Let the tokens x, (B, S, C), attend to each other: (B, S, C)."""
        with_position = x + memory.position
        return self.self_attn(with_position, with_position, x, padding=memory.padding)


class PreNormEncoderLayer(EncoderLayer):
    """`EncoderLayer` with each norm before its block and residuals without norm (DETR's `--pre_norm`).

    The encoder then needs a `norm` at its end.
    """

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Update the tokens: x (B, S, C), positions and padding from `memory` -> (B, S, C)."""
        x = x + self.dropout(self._attend(self.self_attn_norm(x), memory))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Encoder(nn.Module):
    """`num_layers` copies of `layer` with separate weights, and `norm` at the end if it is given."""

    def __init__(self, *, layer: nn.Module, num_layers: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm
        initialize_matrices(self)

    def forward(self, memory: Memory) -> Memory:
        """Return the memory with its tokens, (B, S, C), encoded."""
        x = memory.tokens
        for layer in self.layers:
            x = layer(x, memory)
        return memory.with_tokens(x if self.norm is None else self.norm(x))


class InputPositionEncoder(Encoder):
    """`Encoder` with the positions also added to the tokens once, before the first layer (DETR, table 3, "at input").

    Values then hold their position, which a short training from scratch needs: with positions in queries and keys
    only, the values show a position only through the attention weights. `content_scale` multiplies the tokens before
    the addition.
    """

    def __init__(
        self, *, layer: nn.Module, num_layers: int, norm: nn.Module | None = None, content_scale: float = 1.0
    ) -> None:
        super().__init__(layer=layer, num_layers=num_layers, norm=norm)
        self.content_scale = content_scale

    def forward(self, memory: Memory) -> Memory:
        """Add the positions to the tokens, (B, S, C), and return the memory with these encoded."""
        return super().forward(memory.with_tokens(self.content_scale * memory.tokens + memory.position))


class ScaledPositionEncoder(Encoder):
    """`Encoder` with the positions in each layer multiplied by an MLP of the layer's input; all layers share the MLP.

    DAB-DETR (Liu et al. 2022) describes this for its decoder; its released code, which this follows, has it in the
    encoder as well.
    """

    def __init__(self, *, layer: nn.Module, num_layers: int, embed_dim: int, norm: nn.Module | None = None) -> None:
        super().__init__(layer=layer, num_layers=num_layers, norm=norm)
        self.position_scale = MLP(embed_dim, embed_dim, embed_dim, 2)
        initialize_matrices(self.position_scale)

    def forward(self, memory: Memory) -> Memory:
        """Return the memory with its tokens, (B, S, C), encoded and its positions unscaled."""
        x = memory.tokens
        for layer in self.layers:
            x = layer(x, dataclasses.replace(memory, position=memory.position * self.position_scale(x)))
        return memory.with_tokens(x if self.norm is None else self.norm(x))
