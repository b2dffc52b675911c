"""The decoder that predicts a centre per query."""

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
    """A decoder of `ModulatedDecoderLayer`s with a centre per query (SMCA, Gao et al. 2021, section 3.2).

    An MLP predicts the centre from the input of the first layer, normed as there. The Gaussians and boxes of all layers
    start from the centre and train it.
    """

    def __init__(
        self, *, layer: ModulatedDecoderLayer, num_layers: int, embed_dim: int, norm: nn.Module | None = None
    ) -> None:
        super().__init__(layer=layer, num_layers=num_layers, norm=norm)
        self.centre = MLP(embed_dim, embed_dim, 2, 3)
        initialize_matrices(self.centre)

    def decode(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> tuple[Tensor, list[Tensor] | None]:
        """Decode as `Decoder` does, with the centre of each query, (B, Q, 2) float32, as its reference."""
        return super().decode([self._with_centre(part) for part in queries], memory, head)

    def _with_centre(self, part: QueryPart) -> QueryPart:
        position = position_of(QueryPlace(position=part.position))
        normed = self.layers[0].get_submodule("place_norm")(part.content + position)
        return dataclasses.replace(part, reference=self.centre(normed).float().sigmoid())
