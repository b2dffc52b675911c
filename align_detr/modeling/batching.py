"""Batches of images of different sizes: their backbone features, their detections, their annotations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import Tensor

from align_detr.errors import DatasetError
from align_detr.structures import Targets

Size = tuple[int, int]


def features_of_padded_batch(backbone: Backbone, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Pads (3, h, w) images with zeros to the largest and runs the backbone once: its maps, and the padded (height,
    width).

    The recipe of training. A convolution beyond the first sees the padding as something other than its own zeros, so
    what an image's borders become depends a little on the batch.
    """
    padded = _round_up([x.shape[-2:] for x in images], backbone.size_divisibility or 1)
    return backbone(pad_and_stack(images, padded)), padded


def features_of_each_size(backbone: Backbone, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Runs the backbone once for every size among the (3, h, w) images and pads the maps: an image's features are the
    same in any batch.

    The recipe of evaluation. Returns maps and padded (height, width) such that `neck.valid_size` finds each image's own
    part of every map.
    """
    by_size = indices_by_size(images)
    if len(by_size) == 1:
        return features_of_padded_batch(backbone, images)
    maps: dict[str, dict[int, Tensor]] = {}
    for indices in by_size.values():
        features, _ = features_of_padded_batch(backbone, [images[i] for i in indices])
        for name, of_size in features.items():
            maps.setdefault(name, {}).update(zip(indices, of_size, strict=True))
    strides = {name: backbone.output_shape()[name].stride for name in maps}
    padded = _round_up(list(by_size), math.lcm(*strides.values(), backbone.size_divisibility or 1))
    stacked = {
        name: pad_and_stack(
            [of_image[i] for i in range(len(images))], (padded[0] // strides[name], padded[1] // strides[name])
        )
        for name, of_image in maps.items()
    }
    return stacked, padded


def one_size_at_a_time(images: Sequence[Tensor], detect: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
    """Detect objects in images of one size at a time and return the results of all (3, h, w) images in their order.

    `detect(indices)` returns the results of the images at these indices of the batch, all of one size.

    For detectors that a batch's padding would otherwise reach by more ways than the backbone: norms over whole maps,
    convolutions after it, proposals. Published results are those of single images.
    """
    results: dict[int, Any] = {}
    for indices in indices_by_size(images).values():
        results.update(zip(indices, detect(indices), strict=True))
    return [results[i] for i in range(len(images))]


def indices_by_size(images: Sequence[Tensor]) -> dict[Size, list[int]]:
    """Where in the batch the (3, h, w) images of each (height, width) are."""
    by_size: dict[Size, list[int]] = {}
    for i, x in enumerate(images):
        by_size.setdefault((x.shape[-2], x.shape[-1]), []).append(i)
    return by_size


def targets_of_batch(
    batched_inputs: Sequence[Mapping[str, Any]], *, num_classes: int, device: torch.device | str
) -> Targets:
    """The annotations of detectron2's inputs on `device`.

    Raises `DatasetError` for no image, for one without `instances`, and as `Targets.from_instances`, with the image's
    file name where there is one.
    """
    if not batched_inputs:
        raise DatasetError("a training step was given no image: check the data loader's batch size")
    names = [x.get("file_name", f"number {b} of the batch") for b, x in enumerate(batched_inputs)]
    for x, name in zip(batched_inputs, names, strict=True):
        if "instances" not in x:
            raise DatasetError(
                f"image {name} comes without 'instances': train with a mapper that reads annotations, or call "
                "model.eval() first"
            )
    instances = [x["instances"] for x in batched_inputs]
    return Targets.from_instances(instances, num_classes=num_classes, device=device, names=names)


def pad_and_stack(maps: Sequence[Tensor], size: Size) -> Tensor:
    """(C, h, w) maps of any sizes up to `size` -> (B, C, *size), zeros at the right and at the bottom."""
    return torch.stack([F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2])) for x in maps])


def _round_up(sizes: Sequence[Sequence[int]], divisor: int) -> Size:
    height, width = (-(-max(size) // divisor) * divisor for size in zip(*sizes, strict=True))
    return height, width
