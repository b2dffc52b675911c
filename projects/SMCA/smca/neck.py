"""DETR's neck that also gives the size of each image in cells of its map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align_detr.errors import ConfigError
from align_detr.modeling.neck import SingleScaleNeck
from align_detr.structures import Memory, fields_of


@dataclass
class ExtentMemory(Memory):
    """Tokens, with `extent` (B, 2) float32: the image's own width and height in cells, not rounded."""

    extent: Tensor


def require_extent(memory: Memory) -> ExtentMemory:
    """Return `memory`; raise ConfigError if it does not have the size of each image."""
    if not isinstance(memory, ExtentMemory):
        raise ConfigError(
            "The memory has no sizes of images, which ModulatedDecoderLayer reads: set model.neck to an ExtentNeck."
        )
    return memory


class ExtentNeck(SingleScaleNeck):
    """DETR's projection of one backbone map, with each image's size in cells of `stride` pixels."""

    def __init__(
        self, *, in_feature: str, in_channels: int, embed_dim: int, position: torch.nn.Module, stride: int = 32
    ) -> None:
        super().__init__(in_feature=in_feature, in_channels=in_channels, embed_dim=embed_dim, position=position)
        self.stride = stride

    def forward(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]
    ) -> ExtentMemory:
        """Return the tokens of features[in_feature] (B, in_channels, h, w), of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels.
        """
        memory = super().forward(features, image_sizes, padded_size)
        cells = torch.tensor([(w / self.stride, h / self.stride) for h, w in image_sizes], dtype=torch.float32)
        return ExtentMemory(**fields_of(memory), extent=cells.to(memory.tokens.device, non_blocking=True))
