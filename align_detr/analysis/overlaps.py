"""Overlaps of the detections and objects of an image."""

from dataclasses import dataclass

import numpy as np

from align_detr.analysis.tables import Detections, Floats, Integers, Objects, Truth

_PAIRS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and an object of one image, of whatever classes, whose boxes intersect.

    `detection` (P,), `object` (P,): indices, sorted by detection, then object. `iou` (P,): intersection over union; for
    a crowd, intersection over the detection's area, as COCO has it.
    """

    detection: Integers
    object: Integers
    iou: Floats

    def __len__(self) -> int:
        return len(self.iou)

    def select(self, keep: np.ndarray) -> "Overlaps":
        """Return some of the pairs: those of a mask or of indices."""
        return Overlaps(self.detection[keep], self.object[keep], self.iou[keep])


def find_overlaps(truth: Truth, detections: Detections) -> Overlaps:
    """Return the overlaps of all images, computed in float64 as pycocotools does, to the last bit."""
    objects = truth.objects
    by_image = np.argsort(objects.image, kind="stable")
    starts = np.searchsorted(objects.image[by_image], np.arange(truth.num_images + 1))
    first, count = starts[detections.image], np.diff(starts)[detections.image]
    ends = np.cumsum(count)
    parts, start = [], 0
    while start < len(detections):  # in parts, for a bound on memory
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        detection = np.repeat(np.arange(start, stop), count[start:stop])
        offset = np.arange(len(detection)) - np.repeat(ends[start:stop] - count[start:stop] - before, count[start:stop])
        parts.append(_intersecting(detections, objects, detection, by_image[first[detection] + offset]))
        start = stop
    columns = zip(*parts, strict=True) if parts else ((np.zeros(0, int),), (np.zeros(0, int),), (np.zeros(0),))
    return Overlaps(*(np.concatenate(column) for column in columns))


def _intersecting(
    detections: Detections, objects: Objects, detection: Integers, of: Integers
) -> tuple[Integers, Integers, Floats]:
    """Return those of the pairs (`detection`, `of`) that intersect, with their overlap."""
    x, y, w, h = detections.box[detection].T
    left, top, wide, high = objects.box[of].T
    width = np.minimum(x + w, left + wide) - np.maximum(x, left)
    height = np.minimum(y + h, top + high) - np.maximum(y, top)
    keep = np.flatnonzero((width > 0) & (height > 0))
    intersection = (width * height)[keep]
    area, other = (w * h)[keep], (wide * high)[keep]
    union = np.where(objects.crowd[of[keep]], area, area + other - intersection)
    return detection[keep], of[keep], intersection / union
