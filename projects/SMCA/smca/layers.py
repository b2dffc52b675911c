"""The decoder layer with spatially modulated cross-attention."""

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.decoder_layers import DecoderLayer, position_of
from align_detr.projects.smca.attention import ModulatedAttention, log_gaussian
from align_detr.projects.smca.neck import ExtentMemory, require_extent
from align_detr.structures import Memory, QueryPlace


class ModulatedDecoderLayer(DecoderLayer):
    """DETR's decoder layer with a Gaussian prior per head in cross-attention (SMCA, Gao et al. 2021, section 3.2).

    From the normed sum of content and position, each head gets an offset from the query's centre, in cells, and two
    numbers whose squares multiply the squared distances in x and y; `smooth` divides the sum. The paper divides by the
    squares; this follows the released code (`--dynamic_scale type3`), where a large number gives a narrow Gaussian.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        dropout: float = 0.1,
        smooth: float = 8.0,
    ) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
        self.cross_attn = ModulatedAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.place_norm = nn.LayerNorm(embed_dim)
        self.offset = nn.Linear(embed_dim, 2 * num_heads)
        self.sharpness = nn.Linear(embed_dim, 2 * num_heads)
        self.num_heads = num_heads
        self.smooth = smooth
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start all heads at the query's centre with the exponent -distance^2 / smooth; the paper names no start."""
        for linear, bias in ((self.offset, 0.0), (self.sharpness, 1.0)):
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, bias)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        """Return the new contents: x (B, Q, C) -> (B, Q, C). The prior depends on the input of the layer.

        Raise ConfigError for queries without centres or a memory without the images' sizes.
        """
        log_prior = self.log_prior(x, place, require_extent(memory))
        x = self.self_attn_norm(x + self.dropout(self._attend_queries(x, place)))
        attended = self.cross_attn(
            x + position_of(place),
            memory.tokens_and_position,
            memory.tokens,
            log_prior=log_prior,
            padding=memory.padding,
        )
        x = self.cross_attn_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def log_prior(self, x: Tensor, place: QueryPlace, memory: ExtentMemory) -> Tensor:
        """Return the logarithm of the prior, (B, H, Q, S) float32, at most 0.

        `place.reference` (B, Q, 2) is the query's centre in [0, 1] of its image.
        """
        if place.reference is None:
            raise ConfigError(
                "The queries have no centres, which ModulatedDecoderLayer reads: use it in a ModulatedDecoder."
            )
        normed = self.place_norm(x + position_of(place))
        offset, sharpness = (
            linear(normed).float().unflatten(-1, (self.num_heads, 2)).transpose(1, 2)
            for linear in (self.offset, self.sharpness)
        )
        centre = place.reference * memory.extent[:, None]
        return log_gaussian(centre[:, None] + offset, sharpness.square(), memory.shapes[0], self.smooth)
