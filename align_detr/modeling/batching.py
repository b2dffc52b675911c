"""Backbone features of images of different sizes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


def features_of_padded_batch(backbone: nn.Module, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Pads (3, h, w) images with zeros to the largest and runs the backbone once: its maps, and the padded (height,
    width).

    The recipe of training. A convolution beyond the first sees the padding as something other than its own zeros, so
    what an image's borders become depends a little on the batch.
    """
    padded = _round_up([x.shape[-2:] for x in images], backbone.size_divisibility or 1)
    return backbone(pad_and_stack(images, padded)), padded


def features_of_each_size(backbone: nn.Module, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Runs the backbone once for every size among the (3, h, w) images and pads the maps: an image's features are the
    same in any batch.

    The recipe of evaluation. Returns maps and padded (height, width) such that `neck.valid_size` finds each image's own
    part of every map.
    """
    members: dict[Size, list[int]] = {}
    for i, x in enumerate(images):
        members.setdefault((x.shape[-2], x.shape[-1]), []).append(i)
    if len(members) == 1:
        return features_of_padded_batch(backbone, images)
    maps: dict[str, dict[int, Tensor]] = {}
    for indices in members.values():
        features, _ = features_of_padded_batch(backbone, [images[i] for i in indices])
        for name, stacked in features.items():
            maps.setdefault(name, {}).update(zip(indices, stacked, strict=True))
    strides = {name: backbone.output_shape()[name].stride for name in maps}
    padded = _round_up(list(members), math.lcm(*strides.values(), backbone.size_divisibility or 1))
    stacked = {
        name: pad_and_stack(
            [of_image[i] for i in range(len(images))], (padded[0] // strides[name], padded[1] // strides[name])
        )
        for name, of_image in maps.items()
    }
    return stacked, padded


def pad_and_stack(maps: Sequence[Tensor], size: Size) -> Tensor:
    """(C, h, w) maps of any sizes up to `size` -> (B, C, *size), zeros at the right and at the bottom."""
    return torch.stack([F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2])) for x in maps])


def _round_up(sizes: Sequence[Sequence[int]], divisor: int) -> Size:
    height, width = (-(-max(size) // divisor) * divisor for size in zip(*sizes, strict=True))
    return height, width
