"""Every target beside all queries of its image: what the terms of the matching cost are computed from."""

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
    """n targets in r rows, each with all queries of its image: no pair of a query and a target of two images.

    logits (r, b, Q, K), queries (4, r, b, Q) and truth (4, n) with x, y and half the width and height of the boxes,
    label and image (n,), the latter counted from the first of the b images. `distinct` names one target of each class
    and image (d,), and which of them each target is like (n,), where that is known and spares work.
    """

    logits: Tensor
    queries: Tensor
    truth: Tensor
    label: Tensor
    image: Tensor
    distinct: tuple[Tensor, Tensor] | None = None

    @classmethod
    def padded(cls, preds: Predictions, targets: Targets) -> "Pairs":
        """All T targets of every image, padding as well: n = B T."""
        images, longest = targets.labels.shape
        return cls(
            logits=preds.logits,
            queries=_centre_and_half(preds.boxes),
            truth=_centre_and_half(targets.boxes).flatten(1),
            label=targets.labels.flatten(),
            image=torch.arange(images, device=targets.labels.device).repeat_interleave(longest),
        )

    def of_class(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` of the logit that each query has for the target's class, (r, n, Q)."""
        image, label = self.image, self.label
        if self.distinct is not None:
            image, label = image[self.distinct[0]], label[self.distinct[0]]
        values = function(self.logits.transpose(-1, -2)[:, image, label])
        return values if self.distinct is None else values.index_select(1, self.distinct[1])

    @cached_property
    def boxes(self) -> Tensor:
        """The queries' boxes, (4, r, n, Q)."""
        return self.queries.index_select(2, self.image)

    @cached_property
    def distance(self) -> Tensor:
        """Absolute differences of x, y and half the width and height, (4, r, n, Q)."""
        return (self.boxes - self.truth[:, None, :, None]).abs_()

    def giou(self, eps: float) -> Tensor:
        """Generalised IoU, (r, n, Q), as `layers.boxes.pairwise_giou`.

        Two intervals of half lengths a and b, whose centres lie c apart, overlap by a + b - max(c, |a - b|) and span
        a + b + max(c, |a - b|). With `eps` in the union U and the hull H, I / U - (H - U) / H is I / U + U / H - 1.
        """
        half = self.truth[2:, None, :, None]
        sides = self.boxes[2:] + half
        apart = torch.maximum(self.distance[:2], self.distance[2:])
        overlap = (sides - apart).clamp_(min=0)
        hull = sides.add_(apart)
        inter = overlap[0].mul_(overlap[1])
        hull = _positive(hull[0].mul_(hull[1]), eps)
        union = torch.addcmul(4 * half[0] * half[1], self.boxes[2], self.boxes[3], value=4).sub_(inter)
        union = _positive(union, eps)
        return inter.div_(union).add_(union.div_(hull)).sub_(1)


def in_parts(
    preds: Predictions, targets: Targets, image: np.ndarray, place: np.ndarray
) -> Iterator[tuple[Pairs, slice, slice]]:
    """The pairs of the targets that stand at `place` of `image`, (N,) each in ascending order, with the rows and the
    targets that each part has of (R, N, Q): on a CPU so many at a time that the cache holds them, on a device all.
    """
    rows, _, queries, _ = preds.boxes.shape
    device = preds.boxes.device
    size = CACHED_PAIRS // max(1, queries) if device.type == "cpu" else rows * len(image)
    width = max(1, min(size, len(image)))
    height = max(1, size // width)
    index = torch.from_numpy(np.stack([image, place])).to(device, non_blocking=True)
    label, truth = targets.labels[index[0], index[1]], _centre_and_half(targets.boxes[index[0], index[1]])
    boxes = _centre_and_half(preds.boxes)
    for start in range(0, len(image), width):
        own = slice(start, min(start + width, len(image)))
        images = slice(int(image[own][0]), int(image[own][-1]) + 1)
        part = Pairs(
            logits=preds.logits[:, images],
            queries=boxes[:, :, images],
            truth=truth[:, own],
            label=label[own],
            image=index[0, own] - images.start,
            distinct=_distinct(image[own], label[own]),
        )
        for row in range(0, rows, height):
            these = slice(row, min(row + height, rows))
            yield dataclasses.replace(part, logits=part.logits[these], queries=part.queries[:, these]), these, own


def _distinct(image: np.ndarray, label: Tensor) -> tuple[Tensor, Tensor] | None:
    """See `Pairs`. Nothing where no class repeats in an image, or where the labels are on a device."""
    if label.device.type != "cpu":
        return None
    key = image + label.numpy() * (int(image[-1]) + 1)
    _, first, like = np.unique(key, return_index=True, return_inverse=True)
    return (torch.from_numpy(first), torch.from_numpy(like)) if len(first) < len(key) else None


def _centre_and_half(boxes: Tensor) -> Tensor:
    """cxcywh (..., 4) -> x, y and half the width and height (4, ...), each by itself in memory."""
    boxes = boxes.movedim(-1, 0).clone(memory_format=torch.contiguous_format)
    boxes[2:] /= 2
    return boxes


def _positive(area: Tensor, eps: float) -> Tensor:
    """area + eps, in place; without `eps`, 0 / 0 is to be 0."""
    return area.add_(eps) if eps > 0 else area.clamp_(min=torch.finfo(area.dtype).tiny)


def image_and_index(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and place in it of each target, (N,) each."""
    image = np.repeat(np.arange(len(counts)), counts)
    return image, np.arange(len(image)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)
