"""Encoder and decoder layers that attend to a few sampling points per level (Deformable-DETR, Zhu et al. 2021)."""

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention
from align_detr.modeling.decoder_layers import DecoderLayer, position_of
from align_detr.modeling.encoder import Encoder, EncoderLayer
from align_detr.structures import Memory, QueryPlace


class DeformableEncoderLayer(EncoderLayer):
    """`EncoderLayer` whose tokens attend, per head, to `num_points` sampling points around themselves in each of
    `num_levels` levels (section 4.1 of the paper).
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.1,
        num_levels: int = 4,
        num_points: int = 4,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation
        )
        self.self_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )

    def forward(self, x: Tensor, memory: Memory, reference: Tensor | None = None) -> Tensor:
        """Update the tokens: x (B, S, C), positions and padding from `memory` -> (B, S, C).

        `reference` (B, S, L, 2) is `token_references(memory)`, which `DeformableEncoder` computes once for all layers.
        """
        reference = token_references(memory) if reference is None else reference
        attended = self.self_attn(x + memory.position, reference, x, memory.shapes, memory.padding)
        x = self.self_attn_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class DeformableEncoder(Encoder):
    """An encoder of `DeformableEncoderLayer`s."""

    def forward(self, memory: Memory) -> Memory:
        """Return the memory with its tokens, (B, S, C), encoded."""
        reference = token_references(memory)
        x = memory.tokens
        for layer in self.layers:
            x = layer(x, memory, reference)
        return memory.with_tokens(x if self.norm is None else self.norm(x))


class DeformableDecoderLayer(DecoderLayer):
    """`DecoderLayer` whose queries attend, per head, to `num_points` sampling points around their reference point, or
    scaled to their reference box, in each of `num_levels` levels (section 4.1 of the paper).
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.1,
        num_levels: int = 4,
        num_points: int = 4,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation
        )
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )

    def _attend_image(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        if place.reference is None:
            raise ConfigError(
                f"model.decoder.layer is {type(self).__name__}, which samples around references, but model.queries "
                "provides none: use a source of queries with references, or DecoderLayer."
            )
        reference = in_each_level(place.reference, memory)  # (B, Q, L, 2 or 4)
        return self.cross_attn(x + position_of(place), reference, memory.tokens, memory.shapes, memory.padding)


def token_centres(memory: Memory) -> Tensor:
    """Return the centre (x, y) of every token, (B, S, 2) float32, with 1 at the image's right and bottom edge; the
    centres of padding lie beyond 1.
    """
    device = memory.tokens.device
    centres = []
    for (rows, columns), extent in zip(memory.shapes, memory.extents, strict=True):
        y, x = (torch.arange(n, device=device) + 0.5 for n in (rows, columns))
        y, x = y / extent[:, :1], x / extent[:, 1:]  # (B, rows), (B, columns)
        x, y = x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)  # (B, rows, columns)
        centres.append(torch.stack([x, y], dim=-1).flatten(1, 2))  # (B, rows * columns, 2)
    return torch.cat(centres, dim=1)


def token_references(memory: Memory) -> Tensor:
    """Return the centre of every token relative to each level's padded map, (B, S, L, 2) float32."""
    return in_each_level(token_centres(memory), memory)


def in_each_level(reference: Tensor, memory: Memory) -> Tensor:
    """Convert points (B, Q, 2) or boxes (B, Q, 4), relative to the image, to coordinates relative to each level's
    padded map: (B, Q, L, 2 or 4).
    """
    ratios = memory.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)  # (B, L, 2 or 4): once more for width, height
    return reference[:, :, None] * ratios[:, None]
