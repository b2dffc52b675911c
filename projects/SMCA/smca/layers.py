"""The decoder layers with spatially modulated cross-attention."""

from typing import Any

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.decoder_layers import DecoderLayer, position_of
from align_detr.projects.smca.attention import ModulatedAttention, ScaleSelectiveAttention, log_gaussian
from align_detr.projects.smca.neck import ExtentMemory, require_extent, require_scales
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
        modulation = self.modulation(x, place, memory)
        x = self.self_attn_norm(x + self.dropout(self._attend_queries(x, place)))
        attended = self.cross_attn(
            x + position_of(place),
            memory.tokens_and_position,
            memory.tokens,
            padding=memory.padding,
            **modulation,
        )
        x = self.cross_attn_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

    def modulation(self, x: Tensor, place: QueryPlace, memory: Memory) -> dict[str, Any]:
        """Return by name what cross-attention takes of the input of the layer."""
        return {"log_prior": self.log_prior(x, place, require_extent(memory))}

    def log_prior(self, x: Tensor, place: QueryPlace, memory: ExtentMemory) -> Tensor:
        """Return the logarithm of the prior, (B, H, Q, S) float32, at most 0.

        `place.reference` (B, Q, 2) is the query's centre in [0, 1] of its image.
        """
        centre, factor = self.gaussian(x, place, memory)
        return log_gaussian(centre, factor, memory.shapes[0], self.smooth)

    def gaussian(self, x: Tensor, place: QueryPlace, memory: ExtentMemory) -> tuple[Tensor, Tensor]:
        """Return each head's centre in cells, and the factors of the squared distances: (B, H, Q, 2) float32 each."""
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
        return centre[:, None] + offset, sharpness.square()


class _ZeroLinear(nn.Linear):
    """Linear layer that starts at zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ScaleSelectiveDecoderLayer(ModulatedDecoderLayer):
    """`ModulatedDecoderLayer` over several scales: a query attends to each by itself, with one Gaussian per head for
    all, and weighs the scales by the softmax of a linear layer of its embedding (SMCA, Gao et al. 2021, section 3.3).

    A reading, as no multi-scale code was at hand: the Gaussian covers the same part of the image in each scale, the
    shares come from the same normed sum as the Gaussian, and they start equal.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        dropout: float = 0.1,
        smooth: float = 8.0,
        num_scales: int = 3,
    ) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, smooth=smooth)
        self.cross_attn = ScaleSelectiveAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.scale = _ZeroLinear(embed_dim, num_scales)

    def modulation(self, x: Tensor, place: QueryPlace, memory: Memory) -> dict[str, Any]:
        """Return by name what cross-attention takes of the input of the layer. Raise ConfigError for a memory of
        another number of scales.
        """
        scales = require_scales(memory)
        if len(scales.shapes) != self.scale.out_features:
            raise ConfigError(
                f"model.decoder.layer.num_scales is {self.scale.out_features}, but model.neck gives "
                f"{len(scales.shapes)} scales: give both the same number."
            )
        log_prior = self.log_prior(x, place, scales)
        return {"log_prior": log_prior, "shares": self.shares(x, place), "lengths": [h * w for h, w in scales.shapes]}

    def shares(self, x: Tensor, place: QueryPlace) -> Tensor:
        """Return the share of each scale for each query, (B, Q, L) float32, which add up to 1."""
        return self.scale(self.place_norm(x + position_of(place))).float().softmax(-1)

    def log_prior(self, x: Tensor, place: QueryPlace, memory: ExtentMemory) -> Tensor:
        """Return the logarithm of the prior over the tokens of all scales, (B, H, Q, S) float32, at most 0."""
        centre, factor = self.gaussian(x, place, memory)
        of_scales = zip(require_scales(memory).cell_sides, memory.shapes, strict=True)
        priors = [log_gaussian(centre / side, factor * side**2, shape, self.smooth) for side, shape in of_scales]
        return torch.cat(priors, dim=-1)
