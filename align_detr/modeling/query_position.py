"""How a decoder layer's query positions come about: (contents, given positions, references, memory, layer) -> position
(B, Q, C) or None, and the encoded reference (B, Q, C) or None that conditional cross-attention needs.
"""

from torch import Tensor, nn

from align_detr.structures import Memory


class GivenPosition(nn.Module):
    """The positions that the queries bring, in every layer (DETR, section 3.2)."""

    def forward(
        self, x: Tensor, position: Tensor | None, reference: Tensor | None, memory: Memory, layer: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """`position` as it is, and no encoded reference."""
        return position, None
