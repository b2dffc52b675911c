"""The encoder that attends within each scale, and across all of them."""

import copy

import torch
from torch import Tensor, nn

from align_detr.layers.initialization import initialize_matrices
from align_detr.modeling.encoder import Encoder, EncoderLayer
from align_detr.structures import Memory


class IntraScaleEncoderLayer(EncoderLayer):
    """`EncoderLayer` in which tokens attend to those of their own scale; all scales share its weights (SMCA, Gao et al.
    2021, section 3.3).
    """

    def _attend(self, x: Tensor, memory: Memory) -> Tensor:
        """Let the tokens x, (B, S, C), attend to each other within each scale: (B, S, C)."""
        lengths = [h * w for h, w in memory.shapes]
        padding = [None] * len(lengths) if memory.padding is None else memory.padding.split(lengths, dim=1)
        with_position = (x + memory.position).split(lengths, dim=1)
        scales = zip(with_position, x.split(lengths, dim=1), padding, strict=True)
        return torch.cat([self.self_attn(y, y, of_scale, padding=hidden) for y, of_scale, hidden in scales], dim=1)


class IntraAndMultiScaleEncoder(Encoder):
    """`num_intra` copies of `intra_layer`, `num_multi` of `multi_layer`, in which all tokens attend to each other, and
    `num_intra` of `intra_layer` again (SMCA, Gao et al. 2021, section 3.3: 2, 1 and 2).

    Across all scales attention costs the square of their number of tokens: little is lost by doing so once.
    """

    def __init__(
        self,
        *,
        intra_layer: nn.Module,
        multi_layer: nn.Module,
        num_intra: int = 2,
        num_multi: int = 1,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__(layer=intra_layer, num_layers=2 * num_intra, norm=norm)
        for _ in range(num_multi):
            self.layers.insert(num_intra, copy.deepcopy(multi_layer))
        initialize_matrices(self)
