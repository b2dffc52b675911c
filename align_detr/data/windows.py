"""Windows of resized images, without the rest of them where that would be large."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE = 16
"""Windows that fit in a resized image from which on only the window is computed: photos and their panels stay below."""


def window_of_resized(image: Tensor, size: tuple[int, int], top: int, left: int, height: int, width: int) -> Tensor:
    """Return the window (C, height, width) at row `top` and column `left` of an image (C, H, W) resized to `size`.

    Resizing is bilinear with antialiasing. A thin image that is enlarged to many times the window is interpolated at
    the window's pixels alone, in floating point: uint8 may differ by one level from the whole's fixed-point numbers.
    """
    large = size[0] * size[1] > _LARGE * height * width
    if large and size[0] >= image.shape[1] and size[1] >= image.shape[2]:  # antialiasing changes nothing
        return _enlarged(image, size, (top, left), (height, width))
    return _resized(image, size)[:, top : top + height, left : left + width]


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _enlarged(image: Tensor, size: tuple[int, int], first: tuple[int, int], count: tuple[int, int]) -> Tensor:
    """Return `count` rows and columns from `first` on of the image enlarged to `size`."""
    pixels = image
    # the axis of which the window needs the smaller share goes first, so that little is left for the other
    for axis in sorted((0, 1), key=lambda axis: count[axis] / size[axis]):
        pixels = _between(pixels, axis + 1, size[axis], first[axis], count[axis])
    return (pixels if image.is_floating_point() else pixels.round()).to(image.dtype)


def _between(image: Tensor, axis: int, size: int, first: int, count: int) -> Tensor:
    """Return places first to first + count of an axis stretched to `size`, each between the two pixels next to it."""
    side = image.shape[axis]
    places = ((torch.arange(first, first + count, dtype=torch.float64) + 0.5) * (side / size) - 0.5).clamp(0, side - 1)
    low = places.long()
    kind = torch.promote_types(image.dtype, torch.float32)
    shape = [count if each == axis else 1 for each in range(3)]
    start, end = (image.index_select(axis, each).to(kind) for each in (low, (low + 1).clamp(max=side - 1)))
    return torch.lerp(start, end, (places - low).to(kind).reshape(shape))
