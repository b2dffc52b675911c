"""How a decoder layer's query positions come about: (contents, given positions, references, memory, layer) -> position
(B, Q, C) or None, and the encoded reference (B, Q, C) or None that conditional cross-attention needs.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from align_detr.layers.mlp import MLP
from align_detr.layers.positional import encode_coordinates
from align_detr.structures import Memory

MIN_SIDE = 1e-4  # of an anchor, where something is divided by it: an eighth of a pixel of a large image


class QueryPosition(Protocol):
    """What a decoder asks of its `query_position` before each layer."""

    def __call__(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Contents x (B, Q, C), the positions (B, Q, C) and references (B, Q, 2 or 4) of the queries -> the position
        and the encoded reference for layer number `layer`, (B, Q, C) or None each.
        """


class GivenPosition(nn.Module):
    """The positions that the queries bring, in every layer (DETR, section 3.2)."""

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """`position` as it is, and no encoded reference."""
        return position, None


class ConditionalPosition(nn.Module):
    """The positions that the queries bring, and the encoded centre of their reference, scaled by a perceptron of their
    content from the second layer on (Conditional-DETR, Meng et al. 2021, equations 3 and 5).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.temperature = temperature
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor]:
        """x (B, Q, C), reference (B, Q, 2 or 4) -> `position` as it is, and (B, Q, C), y before x."""
        sine = encode_coordinates(reference[..., :2].flip(-1), self.num_features, self.temperature)
        return position, self.scaled(sine, x, layer)

    def scaled(self, sine: Tensor, x: Tensor, layer: int) -> Tensor:
        """(B, Q, C) encoded centres; the first layer leaves them as they are, its queries have no content yet."""
        return sine if layer == 0 else sine * self.query_scale(x)


class AnchorPosition(ConditionalPosition):
    """A perceptron of the encoded anchor box as position, and its encoded centre, scaled by the content and modulated
    by the anchor's size (DAB-DETR, Liu et al. 2022, section 4).

    The modulation divides by the anchor's sides, which the released code leaves unguarded: here a side counts as at
    least 1e-4 in the division, so that a side of zero gives finite numbers; all others are equal.
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.position = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.size = MLP(embed_dim, embed_dim, 2, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor, memory: Memory, layer: int
    ) -> tuple[Tensor, Tensor]:
        """x (B, Q, C), reference (B, Q, 4) -> position and encoded centre, (B, Q, C) each; given positions play no
        part.
        """
        centre, size = reference[..., :2].flip(-1), reference[..., 2:]
        sine = encode_coordinates(centre, self.num_features, self.temperature)
        position = self.position(torch.cat([sine, encode_coordinates(size, self.num_features, self.temperature)], -1))
        return position, self._modulated(self.scaled(sine, x, layer), x, size)

    def _modulated(self, sine: Tensor, x: Tensor, size: Tensor) -> Tensor:
        """The y half of `sine` times (expected height / height), the x half times (expected width / width)."""
        ratio = self.size(x).float().sigmoid() / size.clamp(min=MIN_SIDE)
        return (sine.unflatten(-1, (2, -1)) * ratio.flip(-1)[..., None]).flatten(-2)


class ReferencePosition(nn.Module):
    """A perceptron of the encoded reference box, as it lies in the padded map of the finest level (DINO, Zhang et al.
    2022, and DAB-Deformable-DETR, as their released code has it).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.temperature = temperature
        self.position = MLP(2 * embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor, memory: Memory, layer: int
    ) -> tuple[Tensor, None]:
        """reference (B, Q, 4) -> position (B, Q, C), of y, x, width, height; given positions play no part."""
        cx, cy, w, h = (reference * memory.valid_ratios[:, :1].repeat(1, 1, 2)).unbind(-1)
        boxes = torch.stack([cy, cx, w, h], dim=-1)
        return self.position(encode_coordinates(boxes, self.num_features, self.temperature)), None


class ScaledReferencePosition(ReferencePosition):
    """The same, scaled by a perceptron of the content from the second layer on (DAB-Deformable-DETR, Liu et al. 2022,
    section 4.1).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor, memory: Memory, layer: int
    ) -> tuple[Tensor, None]:
        """x (B, Q, C), reference (B, Q, 4) -> position (B, Q, C)."""
        position, _ = super().forward(x, position, reference, memory, layer)
        return position if layer == 0 else position * self.query_scale(x), None
