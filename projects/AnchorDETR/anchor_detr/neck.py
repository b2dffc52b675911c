"""The neck of Anchor-DETR: from a backbone map to normed tokens, with the position encoding that queries share."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.modeling.neck import SingleScaleNeck
from align_detr.projects.anchor_detr.position import PointEncoding
from align_detr.structures import Memory, Sizes, fields_of


@dataclass
class AnchorMemory(Memory):
    """Tokens, with the `encoding` of their positions, which also encodes the anchor points of the queries."""

    encoding: PointEncoding


class AnchorNeck(SingleScaleNeck):
    """A 1x1 convolution and a group norm; `position` is a `PointEncoding` or a `RowColumnEncoding`.

    The statistics of the norm are those of the image's own part, so that an image has the same tokens in any batch;
    `norm_padding=True` includes the padding, as the port does.
    """

    position: PointEncoding

    def __init__(
        self,
        *,
        in_feature: str,
        in_channels: int,
        embed_dim: int,
        position: PointEncoding,
        num_groups: int = 32,
        norm_padding: bool = False,
    ) -> None:
        super().__init__(in_feature=in_feature, in_channels=in_channels, embed_dim=embed_dim, position=position)
        self.norm = nn.GroupNorm(num_groups, embed_dim)
        self.norm_padding = norm_padding

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> AnchorMemory:
        """Return the tokens of features[in_feature] (B, in_channels, h, w), of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels.
        """
        memory = super().forward(features, image_sizes, padded_size)
        tokens = group_norm(memory.tokens, self.norm, None if self.norm_padding else memory.padding)
        return AnchorMemory(**fields_of(memory.with_tokens(tokens)), encoding=self.position)


def group_norm(tokens: Tensor, norm: nn.GroupNorm, padding: Tensor | None) -> Tensor:
    """Apply `norm` to tokens (B, S, C), in float32, with mean and variance over the tokens outside `padding` (B, S)."""
    if padding is None:
        return norm(tokens.transpose(1, 2)).transpose(1, 2)
    x = tokens.float().unflatten(-1, (norm.num_groups, -1))
    inside = (~padding).float()[..., None, None]
    count = inside.sum(1, keepdim=True) * x.shape[-1]
    mean = (x * inside).sum((1, 3), keepdim=True) / count
    variance = ((x - mean).square() * inside).sum((1, 3), keepdim=True) / count
    x = ((x - mean) * torch.rsqrt(variance + norm.eps)).flatten(2)
    return torch.addcmul(norm.bias, x, norm.weight).to(tokens.dtype)
