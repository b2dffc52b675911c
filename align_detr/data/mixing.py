"""Mosaic and mixup: training images made of several, so that one-to-one matching finds more objects per image.

DEIM (Huang et al., CVPR 2025) calls this dense one-to-one matching. Only the idea and its switches are DEIM's; how an
image is cut to its place is stated here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.checks import check_number, check_share, is_number
from align_detr.data.windows import window_of_resized
from align_detr.errors import ConfigError

Mapped = dict[str, Any]


class Mix(ABC):
    """A way to make one training image of several, used with `probability` while training is within [start, stop).

    start, stop: shares of training, from 0 to 1; at 0.5 of 12 epochs, 6 are over. min_visible: an object of which a
    cut leaves less than this share of its box is left out. min_side: so is one whose box gets a shorter side, in
    pixels. Random numbers come from numpy's global generator, as those of `DetrMapper`.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        start: float = 0.0,
        stop: float = 0.5,
        min_visible: float = 0.3,
        min_side: float = 2.0,
    ) -> None:
        name = type(self).__name__
        shares = {"probability": probability, "start": start, "stop": stop, "min_visible": min_visible}
        for key, value in shares.items():
            check_share(value, f"{name}.{key}")
        if start >= stop:
            raise ConfigError(
                f"{name}.start is {start} and {name}.stop is {stop}, which leave no time for mixing: set stop (0.5 "
                "where none is given) to a later share than start, or dataloader.train.mixes to [] to mix nothing."
            )
        self.probability, self.start, self.stop = probability, start, stop
        self.min_visible, self.min_side = min_visible, check_number(min_side, f"{name}.min_side", 0)

    def __call__(self, mapped: Mapped, progress: float, draw: Callable[[], Mapped]) -> Mapped:
        """Return a mapped record, or its mixture with records of `draw`, after the share `progress` of training.

        A mixture has the size, names and numbers of `mapped`, whose entries stay as they are, and the objects of all.
        Its entry `mixed_with` lists the image_id of the others, `left_out` counts the objects that are left out.
        """
        if not self.start <= progress < self.stop or np.random.rand() >= self.probability:
            return mapped
        return self.mix(mapped, draw)

    @abstractmethod
    def mix(self, mapped: Mapped, draw: Callable[[], Mapped]) -> Mapped:
        """Return the mixture of a mapped record with records of `draw`."""

    def cut(self, mapped: Mapped, height: int, width: int) -> "Piece":
        """Return a window of (height, width) of a mapped record, at random, resized by one factor in both directions.

        The factor is drawn between the least with which the image covers the window, and 1 if that is larger.
        """
        image, instances = mapped["image"], mapped["instances"]
        least = max(height / image.shape[1], width / image.shape[2])
        factor = np.random.uniform(least, max(least, 1.0))
        size = (max(height, round(image.shape[1] * factor)), max(width, round(image.shape[2] * factor)))
        top, left = np.random.randint(size[0] - height + 1), np.random.randint(size[1] - width + 1)
        scale = [size[1] / image.shape[2], size[0] / image.shape[1]] * 2
        whole = instances.gt_boxes.tensor * torch.tensor(scale) - torch.tensor([left, top] * 2)
        boxes = whole.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        area = _area(boxes)
        kept = (area > 0) & (area >= self.min_visible * _area(whole))
        kept &= (boxes[:, 2:] - boxes[:, :2] >= self.min_side).all(1)
        pixels = window_of_resized(image, size, top, left, height, width)
        return Piece(pixels, boxes[kept], instances.gt_classes[kept], len(kept) - int(kept.sum()))


@dataclass(frozen=True)
class Piece:
    """A window of an image: pixels (C, H, W), boxes (N, 4) xyxy in it, classes (N,), number of objects left out."""

    pixels: Tensor
    boxes: Tensor
    classes: Tensor
    left_out: int


class Mosaic(Mix):
    """Four images in the canvas of the first: each is cut to one of the quadrants around a centre drawn within `centre`
    of height and width.
    """

    def __init__(self, *, centre: Sequence[float] = (0.25, 0.75), **options: float) -> None:
        super().__init__(**options)
        self.centre = _interval(centre, "Mosaic.centre", "[0.25,0.75]")

    def mix(self, mapped: Mapped, draw: Callable[[], Mapped]) -> Mapped:
        """Return the mosaic of a mapped record, top left, and three of `draw`."""
        channels, height, width = mapped["image"].shape
        if min(height, width) < 2:
            return mapped
        y, x = (_inner(np.random.uniform(*self.centre) * side, side) for side in (height, width))
        others = [draw() for _ in range(3)]
        canvas = torch.empty((height, width, channels), dtype=mapped["image"].dtype).permute(2, 0, 1)
        pieces = []
        for one, top, left in zip([mapped, *others], (0, 0, y, y), (0, x, 0, x), strict=True):
            piece = self.cut(one, height - y if top else y, width - x if left else x)
            canvas[:, top : top + piece.pixels.shape[1], left : left + piece.pixels.shape[2]] = piece.pixels
            pieces.append(replace(piece, boxes=piece.boxes + torch.tensor([left, top] * 2)))
        return _mixed(mapped, others, canvas, pieces)


class MixUp(Mix):
    """The weighted sum of two images, with the objects of both: the second, cut to the size of the first, shines
    through. The first's weight is drawn within `weight`.
    """

    def __init__(self, *, weight: Sequence[float] = (0.45, 0.55), **options: float) -> None:
        super().__init__(**options)
        self.weight = _interval(weight, "MixUp.weight", "[0.45,0.55]")

    def mix(self, mapped: Mapped, draw: Callable[[], Mapped]) -> Mapped:
        """Return the sum of a mapped record and one of `draw`."""
        image, instances, other = mapped["image"], mapped["instances"], draw()
        second = self.cut(other, image.shape[1], image.shape[2])
        weight = np.random.uniform(*self.weight)
        pixels = torch.lerp(second.pixels.float(), image.float(), weight)
        pixels = pixels if image.is_floating_point() else pixels.round()
        first = Piece(image, instances.gt_boxes.tensor, instances.gt_classes, 0)
        return _mixed(mapped, [other], pixels.to(image.dtype), [first, second])


def _area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes (N, 4) xyxy, 0 for those turned inside out: (N,)."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def _mixed(mapped: Mapped, others: Sequence[Mapped], image: Tensor, pieces: Sequence[Piece]) -> Mapped:
    instances = Instances(tuple(image.shape[1:]))
    instances.gt_boxes = Boxes(torch.cat([piece.boxes for piece in pieces]))
    instances.gt_classes = torch.cat([piece.classes for piece in pieces])
    return {
        **mapped,
        "image": image,
        "instances": instances,
        "mixed_with": [*mapped.get("mixed_with", ()), *(other.get("image_id") for other in others)],
        "left_out": mapped.get("left_out", 0) + sum(piece.left_out for piece in pieces),
    }


def _inner(position: float, side: int) -> int:
    """Return a whole position with at least one pixel on both sides."""
    return min(max(round(position), 1), side - 1)


def _interval(value: Sequence[float], name: str, example: str) -> tuple[float, float]:
    """Return an interval within [0, 1]; raise ConfigError for another value, with an example of a right one."""
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    pair = isinstance(given, list) and len(given) == 2 and all(map(is_number, given))
    if not pair or not 0 <= given[0] <= given[1] <= 1:
        raise ConfigError(
            f"{name} is {given!r}, but must be two shares, the smaller one first: set it to {example}, for example."
        )
    return float(given[0]), float(given[1])
