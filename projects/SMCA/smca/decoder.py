"""The decoder that gives each query a centre."""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from align_detr.layers.initialization import initialize_matrices
from align_detr.layers.mlp import MLP
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import position_of
from align_detr.modeling.head import Head
from align_detr.projects.smca.layers import ModulatedDecoderLayer
from align_detr.structures import Memory, QueryPart, QueryPlace


class ModulatedDecoder(Decoder):
    """A decoder of `ModulatedDecoderLayer`s: a perceptron reads each query's centre off what enters the first layer,
    normed as there. All layers' Gaussians and boxes start from that centre, and train it (SMCA, Gao et al. 2021,
    section 3.2).
    """

    def __init__(
        self, *, layer: ModulatedDecoderLayer, num_layers: int, embed_dim: int, norm: nn.Module | None = None
    ) -> None:
        super().__init__(layer=layer, num_layers=num_layers, norm=norm)
        self.centre = MLP(embed_dim, embed_dim, 2, 3)
        initialize_matrices(self.centre)

    def decode(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> tuple[Tensor, list[Tensor] | None]:
        """As `Decoder.decode`, with the centre of each query, (B, Q, 2) float32, for its reference."""
        return super().decode([self._with_centre(part) for part in queries], memory, head)

    def _with_centre(self, part: QueryPart) -> QueryPart:
        position = position_of(QueryPlace(position=part.position))
        normed = self.layers[0].get_submodule("place_norm")(part.content + position)
        return dataclasses.replace(part, reference=self.centre(normed).float().sigmoid())
