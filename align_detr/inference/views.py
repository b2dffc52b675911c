"""How a detector looks at an image: in the size of its config's test augmentation, or several times."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.checks import check_count
from align_detr.data.fast_transforms import FastInput
from align_detr.errors import ConfigError, DatasetError

MAX_SIDE = 4096
"""Largest short side, in pixels, that test-time augmentation looks at an image in."""


@dataclass(frozen=True)
class View:
    """One look at an image: augmentations that keep the picture's layout (a resize), and a flip after them."""

    augmentations: Sequence[T.Augmentation] = ()
    flip: bool = False
    image_format: str = "RGB"

    def image(self, pixels: np.ndarray, name: str) -> Tensor:
        """Return RGB pixels (H, W, 3) uint8 as the model's input (3, h, w) uint8.

        Raise DatasetError for an image that is too thin to be resized; `name` is what the error calls it.
        """
        if self.image_format == "BGR":
            pixels = pixels[..., ::-1]
        if self.augmentations:
            seen = FastInput(pixels)  # as the mapper of evaluation
            try:
                T.AugmentationList(list(self.augmentations))(seen)
            except ValueError as error:
                raise DatasetError(
                    f"{name} with {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be resized ({error}): crop it."
                ) from error
            pixels = seen.image
        if self.flip:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def in_image(self, found: Instances) -> Instances:
        """Return detections in this view, scaled to the image's size, in the image itself."""
        if not self.flip:
            return found
        x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
        width = found.image_size[1]
        fields = {**found.get_fields(), "pred_boxes": Boxes(torch.stack([width - x1, y0, width - x0, y1], dim=1))}
        if found.has("pred_masks"):  # (N, H, W)
            fields["pred_masks"] = found.pred_masks.flip(-1)
        return Instances(found.image_size, **fields)


@dataclass(frozen=True)
class TestView:
    """What a config's test mapper does to an image: augmentations, channel order, the white level of deep grey."""

    __test__ = False  # no test of pytest's

    augmentations: Sequence[T.Augmentation] = field(default=())
    image_format: str = "RGB"
    white_level: float | None = None

    def views(self, *, flip: bool = False, sides: int | Sequence[int] | None = None) -> list[View]:
        """Return the views of test-time augmentation: each of the sizes, plain and, with `flip`, flipped.

        sides: short sides in pixels, in place of the config's; its longest side grows or shrinks with them. Raise
        ConfigError for a side that is no number of pixels from 1 to MAX_SIDE.
        """
        listed: list[int | None] = [None]
        if sides is not None:
            several = isinstance(sides, Sequence) and not isinstance(sides, str)
            listed = list(sides) if several else [sides]  # type: ignore[arg-type,list-item]  # a number alone
        remedy = "name one or several short sides in pixels, such as [640, 800]"
        for side in listed:
            if sides is not None and check_count(side, "sides", 1, remedy) > MAX_SIDE:  # type: ignore[arg-type]
                raise ConfigError(f"sides is {sides!r}, of which {side} is above {MAX_SIDE} pixels: {remedy}.")
        if not listed:
            raise ConfigError(f"sides is {sides!r}: {remedy}.")
        return [
            View(self._augmentations(side), flipped, self.image_format)
            for side in listed
            for flipped in ((False, True) if flip else (False,))
        ]

    def _augmentations(self, side: int | None) -> Sequence[T.Augmentation]:
        if side is None:
            return self.augmentations
        resizes = [x for x in self.augmentations if isinstance(x, T.ResizeShortestEdge)]
        others = [x for x in self.augmentations if not isinstance(x, T.ResizeShortestEdge)]
        return [*others, T.ResizeShortestEdge([side, side], max_size=_longest(resizes, side))]


def _longest(resizes: Sequence[Any], side: int) -> int:
    """Return the limit of the long side that goes with a short side."""
    if not resizes:
        return 1 << 31
    usual = resizes[-1].short_edge_length
    return max(side, round(resizes[-1].max_size * side / (usual if isinstance(usual, int) else max(usual))))
