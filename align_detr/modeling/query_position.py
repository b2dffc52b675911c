"""Modules that compute the queries' positions for a decoder layer, and the encoded references that conditional
cross-attention compares with the positions of tokens.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.mlp import MLP
from align_detr.layers.positional import encode_coordinates
from align_detr.structures import Memory

MIN_SIDE = 1e-4  # least divisor for an anchor's side: an eighth of a pixel in a large image


class QueryPosition(Protocol):
    """The interface of a decoder's `query_position`, which is called before each layer."""

    def __call__(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the position and the encoded reference for layer `layer`, (B, Q, C) or None each.

        x (B, Q, C) are the contents, position (B, Q, C) and reference (B, Q, 2 or 4) those of the query parts or of the
        layer before, or None.
        """


class GivenPosition(nn.Module):
    """The positions of the query parts, in every layer (DETR, section 3.2)."""

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return `position` unchanged and no encoded reference."""
        return position, None


class ConditionalPosition(nn.Module):
    """The positions of the query parts, and the encoded centre of their reference, scaled by an MLP of their content
    from the second layer on (Conditional-DETR, Meng et al. 2021, equations 3 and 5).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.temperature = temperature
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor]:
        """Return `position` unchanged and the encoded centre, (B, Q, C), y before x: x (B, Q, C), reference (B, Q, 2 or
        4). Raise ConfigError without references.
        """
        centre = _require_reference(reference, self)[..., :2].flip(-1)  # (B, Q, 2): y, x
        sine = encode_coordinates(centre, self.num_features, self.temperature)
        return position, self.scaled(sine, x, layer)

    def scaled(self, sine: Tensor, x: Tensor, layer: int) -> Tensor:
        """Scale the encoded centres (B, Q, C), except in the first layer, whose queries have no content yet."""
        return sine if layer == 0 else sine * self.query_scale(x)


class AnchorPosition(ConditionalPosition):
    """An MLP of the encoded anchor box as position, and the encoded centre of the anchor, scaled by the content and
    modulated by the anchor's size (DAB-DETR, Liu et al. 2022, section 4).

    The modulation divides by the anchor's sides, which the released code leaves unguarded. Here the divisor is at least
    1e-4, so that a side of zero gives finite numbers; larger sides give those of the released code.
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.position = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.size = MLP(embed_dim, embed_dim, 2, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Return the position and the encoded centre, (B, Q, C) each: x (B, Q, C), reference (B, Q, 4); `position` is
        ignored. Raise ConfigError without references.
        """
        reference = _require_reference(reference, self)
        centre, size = reference[..., :2].flip(-1), reference[..., 2:]  # (y, x), (width, height)
        sine = encode_coordinates(centre, self.num_features, self.temperature)
        position = self.position(torch.cat([sine, encode_coordinates(size, self.num_features, self.temperature)], -1))
        return position, self._modulated(self.scaled(sine, x, layer), x, size)

    def _modulated(self, sine: Tensor, x: Tensor, size: Tensor) -> Tensor:
        """Multiply the y half of `sine` by expected height / height, the x half by expected width / width."""
        ratio = self.size(x).float().sigmoid() / size.clamp(min=MIN_SIDE)
        return (sine.unflatten(-1, (2, -1)) * ratio.flip(-1)[..., None]).flatten(-2)


class ReferencePosition(nn.Module):
    """An MLP of the encoded reference box, relative to the padded map of the finest level (DINO, Zhang et al. 2022, and
    DAB-Deformable-DETR, as in their released code).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.temperature = temperature
        self.position = MLP(2 * embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor, None]:
        """Return the position (B, Q, C), of y, x, width, height: reference (B, Q, 4); `position` is ignored.

        Raise ConfigError without references.
        """
        reference = _require_reference(reference, self)
        cx, cy, w, h = (reference * memory.valid_ratios[:, :1].repeat(1, 1, 2)).unbind(-1)  # (B, Q) each
        boxes = torch.stack([cy, cx, w, h], dim=-1)
        return self.position(encode_coordinates(boxes, self.num_features, self.temperature)), None


class ScaledReferencePosition(ReferencePosition):
    """`ReferencePosition` scaled by an MLP of the content from the second layer on (DAB-Deformable-DETR, Liu et al.
    2022, section 4.1).
    """

    def __init__(self, *, embed_dim: int, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.query_scale = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor, None]:
        """Return the position (B, Q, C): x (B, Q, C), reference (B, Q, 4). Raise ConfigError without references."""
        position, _ = super().forward(x, position, reference, memory, layer)
        return position if layer == 0 else position * self.query_scale(x), None


def _require_reference(reference: Tensor | None, module: nn.Module) -> Tensor:
    """Return the references. Raise ConfigError if the queries have none."""
    if reference is None:
        raise ConfigError(
            f"model.decoder.query_position is {type(module).__name__}, which encodes references, but model.queries "
            "provides none: use a source of queries with references, or GivenPosition."
        )
    return reference
