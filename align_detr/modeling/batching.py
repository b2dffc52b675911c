"""Batches of images of different sizes: their backbone features, detections and annotations."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone
from torch import Tensor

from align_detr.errors import DatasetError
from align_detr.structures import StepPart, Targets

Size = tuple[int, int]


def features_of_padded_batch(backbone: Backbone, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Pad (3, h, w) images with zeros to the largest and run the backbone once.

    Return its maps, (B, C, h, w) each, and the padded (height, width). This is the recipe of training. After the first
    convolution the padded area is no longer zero, so the features at an image's borders depend slightly on the batch.
    """
    padded = _round_up([x.shape[-2:] for x in images], backbone.size_divisibility or 1)
    return backbone(pad_and_stack(images, padded)), padded


def features_of_each_size(backbone: Backbone, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], Size]:
    """Run the backbone once per size among the (3, h, w) images and pad the maps afterwards.

    Return the maps, (B, C, h, w) each, and a padded (height, width) from which `neck.valid_size` computes the part of
    every map that an image covers. This is the recipe of evaluation: an image's features are the same in any batch.
    """
    by_size = indices_by_size(images)
    if len(by_size) == 1:
        return features_of_padded_batch(backbone, images)
    maps: dict[str, dict[int, Tensor]] = {}
    for indices in by_size.values():  # no padding beyond the backbone's divisor within a size
        features, _ = features_of_padded_batch(backbone, [images[i] for i in indices])
        for name, of_size in features.items():
            maps.setdefault(name, {}).update(zip(indices, of_size, strict=True))
    strides = {name: backbone.output_shape()[name].stride for name in maps}
    # A multiple of every stride, so that the same padded image fits the maps of all levels.
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

    This is for detectors that a batch's padding would reach in more ways than through the backbone: norms over whole
    maps, later convolutions, proposals. Published results are those of single images.
    """
    results: dict[int, Any] = {}
    for indices in indices_by_size(images).values():
        results.update(zip(indices, detect(indices), strict=True))
    return [results[i] for i in range(len(images))]


def indices_by_size(images: Sequence[Tensor]) -> dict[Size, list[int]]:
    """Return the batch indices of the (3, h, w) images of each (height, width)."""
    by_size: dict[Size, list[int]] = {}
    for i, x in enumerate(images):
        by_size.setdefault((x.shape[-2], x.shape[-1]), []).append(i)
    return by_size


def targets_of_batch(
    batched_inputs: Sequence[Mapping[str, Any]], *, num_classes: int, device: torch.device | str
) -> Targets:
    """Return the annotations of detectron2's inputs on `device`.

    The trainer's `step_part` in the inputs becomes `Targets.step`. Raise DatasetError for an empty batch, for an image
    without `instances`, and as `Targets.from_instances`; the error names the image's file if it is known.
    """
    if not batched_inputs:
        raise DatasetError("The training batch has no image: check the data loader's batch size.")
    names = [x.get("file_name", f"number {b} of the batch") for b, x in enumerate(batched_inputs)]
    for x, name in zip(batched_inputs, names, strict=True):
        if "instances" not in x:
            raise DatasetError(
                f"Image {name} has no 'instances': train with a mapper that reads annotations, or call model.eval() "
                "first."
            )
    instances = [x["instances"] for x in batched_inputs]
    targets = Targets.from_instances(instances, num_classes=num_classes, device=device, names=names)
    return dataclasses.replace(targets, step=batched_inputs[0].get("step_part", StepPart()))


def pad_and_stack(maps: Sequence[Tensor], size: Size) -> Tensor:
    """Pad (C, h, w) maps with zeros at the right and the bottom to `size` and stack them: (B, C, *size)."""
    if all(tuple(x.shape[-2:]) == tuple(size) for x in maps):
        return torch.stack(list(maps))
    batch = maps[0].new_zeros((len(maps), maps[0].shape[0], *size))
    for index, x in enumerate(maps):  # one copy of each map, without a padded one in between
        batch[index, :, : x.shape[-2], : x.shape[-1]].copy_(x)  # by index: rows of an iteration refuse gradients
    return batch


def _round_up(sizes: Sequence[Sequence[int]], divisor: int) -> Size:
    """Return the largest height and width, each rounded up to a multiple of `divisor`."""
    height, width = (-(-max(size) // divisor) * divisor for size in zip(*sizes, strict=True))
    return height, width
