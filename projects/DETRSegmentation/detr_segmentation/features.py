"""The features that masks are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align_detr.errors import ConfigError
from align_detr.modeling.neck import valid_size

Size = tuple[int, int]


@dataclass
class MaskFeatures:
    """What the masks of a batch are made of.

    encoded and projected (B, C, h, w): tokens of one level behind and before the encoder; `padding` (B, h * w) True
    outside of the image, or None; maps: the finer backbone maps, (B, C_l, h_l, w_l). The batch is padded to
    `padded_size`, the images have `image_sizes`, (height, width) in pixels; a token's cell has sides of `stride`
    pixels.
    """

    encoded: Tensor
    projected: Tensor
    padding: Tensor | None
    maps: list[Tensor]
    image_sizes: list[Size]
    padded_size: Size
    stride: int

    def cells(self) -> Tensor:
        """Return each image's own width and height in cells of the tokens' map, not rounded: (B, 2) float32."""
        # not by the shape of the map, which is rounded up where the padded size is no multiple of the stride
        cells = torch.tensor([(w / self.stride, h / self.stride) for h, w in self.image_sizes], dtype=torch.float32)
        return cells.to(self.encoded.device, non_blocking=True)

    def of_image(self, index: int) -> "MaskFeatures":
        """Return the features of one image alone, without what lies outside of it."""

        def inside(x: Tensor) -> Tensor:
            height, width = valid_size(self.image_sizes[index], self.padded_size, (x.shape[-2], x.shape[-1]))
            return x[index : index + 1, :, :height, :width]

        size = self.image_sizes[index]
        maps = [inside(x) for x in self.maps]
        return MaskFeatures(inside(self.encoded), inside(self.projected), None, maps, [size], size, self.stride)


def cell_side(shape: Size, padded_size: Size, strides: Sequence[int]) -> int:
    """Return the side, in pixels, of the cells of a map of `shape` (h, w) of a batch padded to `padded_size`.

    It is one of the backbone's `strides`, or one doubled some times, as a neck's further levels have it: the first with
    ceil(height / side) rows and ceil(width / side) columns. Raise ConfigError if none has.
    """
    for side in strides:
        while any(-(-n // side) > cells for n, cells in zip(padded_size, shape, strict=True)):
            side *= 2
        if all(-(-n // side) == cells for n, cells in zip(padded_size, shape, strict=True)):
            return side
    raise ConfigError(
        f"model.neck gives a map of {shape[0]} x {shape[1]} cells for {padded_size[0]} x {padded_size[1]} pixels, "
        f"which has no stride of model.backbone ({', '.join(map(str, strides))}) and none of their doubles: set "
        "model.masks.level to another level."
    )
