"""The convolutional head that makes a mask of a query's attention maps and the image's features."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.errors import ConfigError

NUM_GROUPS = 8


class ConvBlock(nn.Module):
    """A 3x3 convolution, group norm of 8 groups (as many as divide the channels, if 8 do not) and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = nn.GroupNorm(math.gcd(NUM_GROUPS, out_channels), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (M, in_channels, h, w) to (M, out_channels, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class MaskHead(nn.Module):
    """FPN-style head (DETR, figure 8; the channels are the released code's): two blocks on the map of the lowest
    resolution, then for each finer backbone map nearest upsampling, a 1x1 convolution of the map added, and a block
    with half as many channels; a last 3x3 convolution gives the logits.

    Maps: C = `embed_dim` channels of the image and `num_heads` of attention. `in_features` are the finer backbone maps
    in the order in which they come in, `in_channels` their channels by name (a saved config has no order of names). The
    blocks put out C + num_heads, C / 2, C / 4, ...
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        in_features: Sequence[str],
        in_channels: Mapping[str, int],
    ) -> None:
        super().__init__()
        if sorted(in_features) != sorted(in_channels):
            raise ConfigError(
                f"model.masks.head has the maps {', '.join(in_features)} in in_features, but {', '.join(in_channels)} "
                "in in_channels: name the same ones in both."
            )
        if embed_dim < 2 ** (len(in_features) + 1):
            raise ConfigError(
                f"embed_dim {embed_dim} cannot be halved for {len(in_features)} backbone maps: name fewer in "
                "model.masks.head.in_features."
            )
        self.in_features = list(in_features)
        start = embed_dim + num_heads
        widths = [start, *(embed_dim // 2**i for i in range(1, len(in_features) + 2))]
        self.blocks = nn.ModuleList(
            ConvBlock(before, after) for before, after in zip([start, *widths], widths, strict=False)
        )
        self.adapters = nn.ModuleList(
            nn.Conv2d(in_channels[name], width, kernel_size=1)
            for name, width in zip(in_features, widths[1:], strict=False)
        )
        self.output = nn.Conv2d(widths[-1], 1, kernel_size=3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, image_map: Tensor, attention: Tensor, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        """Return the mask logits (M, h', w') of M queries, at the resolution of the finest backbone map.

        image_map (B, C, h, w); attention (M, H, h, w); maps: (B, C_l, h_l, w_l) of each of `in_features`; image (M,):
        the image of each query.
        """
        x = torch.cat([image_map[image], attention], dim=1)
        x = self.blocks[1](self.blocks[0](x))
        for adapter, block, finer in zip(self.adapters, self.blocks[2:], maps, strict=True):
            adapted = adapter(finer)[image]
            x = block(adapted + F.interpolate(x, size=adapted.shape[-2:], mode="nearest"))
        return self.output(x).squeeze(1)
