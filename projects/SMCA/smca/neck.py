"""Necks that also give the size of each image in cells: of one map, and of several scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.neck import SingleScaleNeck, is_full, padding_mask, valid_sizes
from align_detr.structures import Memory, Sizes, fields_of


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


@dataclass
class ScalesMemory(ExtentMemory):
    """Tokens of several scales; `cell_sides` are the sides of each scale's cells, in the cells that `extent` counts."""

    cell_sides: tuple[float, ...]


def require_scales(memory: Memory) -> ScalesMemory:
    """Return `memory`; raise ConfigError if it does not have the cells of several scales."""
    if not isinstance(memory, ScalesMemory):
        raise ConfigError(
            "The memory has no scales, which ScaleSelectiveDecoderLayer reads: set model.neck to a ScalesNeck."
        )
    return memory


class ExtentNeck(SingleScaleNeck):
    """DETR's projection of one backbone map, with each image's size in cells of `stride` pixels."""

    def __init__(
        self, *, in_feature: str, in_channels: int, embed_dim: int, position: torch.nn.Module, stride: int = 32
    ) -> None:
        super().__init__(in_feature=in_feature, in_channels=in_channels, embed_dim=embed_dim, position=position)
        self.stride = stride

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> ExtentMemory:
        """Return the tokens of features[in_feature] (B, in_channels, h, w), of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels.
        """
        memory = super().forward(features, image_sizes, padded_size)
        return ExtentMemory(**fields_of(memory), extent=_extent(image_sizes, self.stride, memory.tokens.device))


class ScalesNeck(nn.Module):
    """A 1x1 convolution per backbone map, and coarser scales by every second row and column of the last projected map
    (SMCA, Gao et al. 2021, section 3.3: cells of 16, 32 and 64 pixels, without a feature pyramid).

    How the authors make the scale of 64 pixels is not known here: a strided convolution of the backbone's last map
    would have 4.7 million parameters, more than their 40 million leave. `strides` are the sides of the scales' cells in
    pixels, finest first; `stride` is the side of those in which Gaussians count.
    """

    def __init__(
        self,
        *,
        in_channels: Mapping[str, int],
        embed_dim: int,
        position: nn.Module,
        strides: Sequence[int] = (16, 32, 64),
        stride: int = 32,
    ) -> None:
        super().__init__()
        if len(strides) < len(in_channels):
            raise ConfigError(
                f"model.neck.strides is {list(strides)}, but in_channels names the {len(in_channels)} maps "
                f"{', '.join(in_channels)}: give each of them its stride."
            )
        self.in_features = list(in_channels)
        self.projections = nn.ModuleList(nn.Conv2d(c, embed_dim, kernel_size=1) for c in in_channels.values())
        self.position = position
        self.cell_sides = tuple(side / stride for side in strides)
        self.stride = stride

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> ScalesMemory:
        """Make tokens of features[name], (B, in_channels[name], h, w) each, of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels. Raise ConfigError if a feature is missing.
        """
        for name in self.in_features:
            if name not in features:
                raise ConfigError(
                    f"model.neck.in_channels names '{name}', but the backbone gives {', '.join(features)}: "
                    "name one of these, or add it to model.backbone.out_features."
                )
        maps = [project(features[name]) for project, name in zip(self.projections, self.in_features, strict=True)]
        valid = [valid_sizes(image_sizes, padded_size, (x.shape[-2], x.shape[-1])) for x in maps]
        for _ in self.cell_sides[len(maps) :]:
            maps.append(maps[-1][..., ::2, ::2])
            # not by `valid_size`: an image of 2 of 5 rows has the first of 3 rows alone, whatever the padding is
            valid.append(_halved(valid[-1]))
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        masks = [padding_mask(v, shape, maps[0].device) for v, shape in zip(valid, shapes, strict=True)]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)  # (B, S, C)
        position = torch.cat([self.position(mask).flatten(2).transpose(1, 2) for mask in masks], dim=1)
        full = all(map(is_full, valid, shapes))
        return ScalesMemory(
            tokens=tokens,
            position=position.to(tokens.dtype),
            padding=None if full else torch.cat([mask.flatten(1) for mask in masks], dim=1),
            shapes=shapes,
            valid_sizes=valid,
            extent=_extent(image_sizes, self.stride, tokens.device),
            cell_sides=self.cell_sides,
        )


def _extent(images: Sizes, stride: int, device: torch.device) -> Tensor:
    """Return the width and height of each image in cells of `stride` pixels, not rounded: (B, 2) float32."""
    if isinstance(images, Tensor):
        return images.flip(1).float() / stride
    cells = torch.tensor([(w / stride, h / stride) for h, w in images], dtype=torch.float32)
    return cells.to(device, non_blocking=True)


def _halved(valid: Sizes) -> Sizes:
    """Return the sizes of every second row and column."""
    return (valid + 1) // 2 if isinstance(valid, Tensor) else [(-(-h // 2), -(-w // 2)) for h, w in valid]
