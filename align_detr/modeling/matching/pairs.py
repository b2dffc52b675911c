"""Pairs of every target with all queries of its image, from which the terms of the matching cost are computed."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from align_detr.structures import Predictions, Targets

CACHED_PAIRS = 2**17  # pairs that a CPU computes at a time, so that the intermediate values stay in its cache


@dataclass
class Pairs:
    """Pairs of n targets, in r rows, with all queries of their images: none of a query and a target of two images.

    logits (r, b, Q, K), queries (4, r, b, Q) and truth (4, n) with x, y and half the width and height of the boxes,
    label and image (n,), the latter counted from the first of the b images. `distinct`, or None, holds the index of one
    target per class and image, (d,), and for each target which of them has its class and image, (n,): fewer logits to
    work on.
    """

    logits: Tensor
    queries: Tensor
    truth: Tensor
    label: Tensor
    image: Tensor
    distinct: tuple[Tensor, Tensor] | None = None

    @classmethod
    def padded(cls, preds: Predictions, targets: Targets) -> "Pairs":
        """Return the pairs of all T targets of every image, padding as well: n = B T."""
        images, longest = targets.labels.shape
        return cls(
            logits=preds.logits,
            queries=_centre_and_half(preds.boxes),
            truth=_centre_and_half(targets.boxes).flatten(1),
            label=targets.labels.flatten(),
            image=torch.arange(images, device=targets.labels.device).repeat_interleave(longest),
        )

    def of_class(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `function` of the logit that each query has for the target's class, (r, n, Q)."""
        image, label = self.image, self.label
        if self.distinct is not None:
            image, label = image[self.distinct[0]], label[self.distinct[0]]
        values = function(self.logits.transpose(-1, -2)[:, image, label])  # (r, d, Q) or (r, n, Q)
        return values if self.distinct is None else values.index_select(1, self.distinct[1])

    @cached_property
    def boxes(self) -> Tensor:
        """Boxes of the queries beside each target, (4, r, n, Q)."""
        return self.queries.index_select(2, self.image)

    @cached_property
    def distance(self) -> Tensor:
        """Absolute differences of x, y and half the width and height, (4, r, n, Q)."""
        return (self.boxes - self.truth[:, None, :, None]).abs_()

    def iou(self, eps: float) -> Tensor:
        """Return the IoU, (r, n, Q), as `layers.boxes.pairwise_iou`."""
        inter, union, _, _ = self._areas(eps)
        return inter.div_(union)

    def giou(self, eps: float) -> Tensor:
        """Return the generalised IoU, (r, n, Q), as `layers.boxes.pairwise_giou`.

        With `eps` in the union U and the hull H, I / U - (H - U) / H is I / U + U / H - 1.
        """
        inter, union, sides, apart = self._areas(eps)
        hull = sides.add_(apart)
        hull = _positive(hull[0].mul_(hull[1]), eps)
        return inter.div_(union).add_(union.div_(hull)).sub_(1)

    def _areas(self, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return intersection and union, with `eps`, of the boxes, (r, n, Q) each, and in x and y the sum a + b of
        their half lengths and the larger of the distance c of their centres and |a - b|, (2, r, n, Q) each.

        The intervals overlap by the first less the second, and span their sum.
        """
        half = self.truth[2:, None, :, None]  # (2, 1, n, 1)
        sides = self.boxes[2:] + half  # (2, r, n, Q), a + b
        apart = torch.maximum(self.distance[:2], self.distance[2:])
        overlap = (sides - apart).clamp_(min=0)
        inter = overlap[0].mul_(overlap[1])  # (r, n, Q)
        union = torch.addcmul(4 * half[0] * half[1], self.boxes[2], self.boxes[3], value=4).sub_(inter)
        return inter, _positive(union, eps), sides, apart


def in_parts(
    preds: Predictions, targets: Targets, image: np.ndarray, index: np.ndarray
) -> Iterator[tuple[Pairs, slice, slice]]:
    """Yield the pairs of the targets with this `index` in their `image`, (N,) each in ascending order, with the rows
    and the targets of (R, N, Q) that each part has: on a CPU as many at a time as its cache holds, on a device all.
    """
    rows, _, queries, _ = preds.boxes.shape
    device = preds.boxes.device
    size = CACHED_PAIRS // max(1, queries) if device.type == "cpu" else rows * len(image)
    width = max(1, min(size, len(image)))  # targets at a time: all, if they fit
    height = max(1, size // width)  # rows at a time
    at = torch.from_numpy(np.stack([image, index])).to(device, non_blocking=True)  # (2, N)
    label, truth = targets.labels[at[0], at[1]], _centre_and_half(targets.boxes[at[0], at[1]])  # (N,), (4, N)
    boxes = _centre_and_half(preds.boxes)  # (4, R, B, Q)
    for start in range(0, len(image), width):
        some = slice(start, min(start + width, len(image)))
        images = slice(int(image[some][0]), int(image[some][-1]) + 1)  # no other image has these targets
        part = Pairs(
            logits=preds.logits[:, images],
            queries=boxes[:, :, images],
            truth=truth[:, some],
            label=label[some],
            image=at[0, some] - images.start,
            distinct=_distinct(image[some], label[some]),
        )
        for row in range(0, rows, height):
            these = slice(row, min(row + height, rows))
            yield dataclasses.replace(part, logits=part.logits[these], queries=part.queries[:, these]), these, some


def _distinct(image: np.ndarray, label: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return `Pairs.distinct`: None if no class repeats in an image, or the labels are on a device (no waiting)."""
    if label.device.type != "cpu":
        return None
    key = image + label.numpy() * (int(image[-1]) + 1)
    _, first, like = np.unique(key, return_index=True, return_inverse=True)
    return (torch.from_numpy(first), torch.from_numpy(like)) if len(first) < len(key) else None


def _centre_and_half(boxes: Tensor) -> Tensor:
    """Return x, y and half the width and height, (4, ...), each contiguous in memory, of cxcywh (..., 4)."""
    boxes = boxes.movedim(-1, 0).clone(memory_format=torch.contiguous_format)
    boxes[2:] /= 2
    return boxes


def _positive(area: Tensor, eps: float) -> Tensor:
    """Add `eps` to the area, in place; without it, keep the area above 0, so that 0 / 0 is 0."""
    return area.add_(eps) if eps > 0 else area.clamp_(min=torch.finfo(area.dtype).tiny)


def image_and_index(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of each target, and its index in that image, (N,) each."""
    image = np.repeat(np.arange(len(counts)), counts)
    return image, np.arange(len(image)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)
