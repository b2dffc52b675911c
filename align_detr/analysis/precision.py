"""COCO's average precision under weights of images."""

import numpy as np

from align_detr.analysis.matching import Matching
from align_detr.analysis.tables import Detections, Floats, Integers, Truth

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's levels of recall."""


class PrecisionCurves:
    """Precision at COCO's levels of recall, per threshold and class, for any number of copies of each image.

    Sorting and matching are done once; a call takes milliseconds.
    """

    def __init__(self, truth: Truth, detections: Detections, matching: Matching) -> None:
        counting = np.flatnonzero(matching.object_counts)
        self._object_image = truth.objects.image[counting]
        self._object_label = truth.objects.label[counting]
        self._num_classes = truth.num_classes
        self._image, self._label = detections.image, detections.label
        self._unmatched_counts = matching.unmatched_counts
        self._matches = matching.at

    def __call__(self, copies: Integers) -> Floats:
        """Return the precision (T, K, 101) with `copies` (I,) of each image; NaN for classes without objects."""
        drawn = copies[self._image]
        wrong = np.concatenate([[0], np.cumsum(np.where(self._unmatched_counts, drawn, 0))])
        start = np.searchsorted(self._label, np.arange(self._num_classes))
        objects = np.bincount(self._object_label, copies[self._object_image], self._num_classes).astype(np.int64)
        needed = _needed(objects)
        curves = np.zeros((len(self._matches), self._num_classes, len(RECALLS)))
        for index, matches in enumerate(self._matches):
            at, label = matches.detection, self._label[matches.detection]
            first = np.searchsorted(label, np.arange(self._num_classes))
            right = _count_in_class(drawn[at] * matches.counts, label, first)
            excused = _count_in_class(drawn[at] * self._unmatched_counts[at], label, first)
            keep = matches.counts
            false = (wrong[at + 1] - wrong[start[label]] - excused)[keep]
            true, label = right[keep], label[keep]
            best = _largest_from(true / (false + true + np.spacing(1)), label, self._num_classes)
            curves[index] = _at_recalls(best, true, label, needed)
        curves[:, objects == 0] = np.nan
        return curves


def mean_precision(curves: Floats) -> float:
    """Return the mean of precision curves in percent, of those classes that have objects; NaN if none has."""
    present = curves[~np.isnan(curves)]
    return float(present.mean() * 100) if len(present) else float("nan")


def _count_in_class(values: Integers, label: Integers, first: Integers) -> Integers:
    """Return the running sum of `values`, begun anew with each class; `first`: where each class begins."""
    sums = np.concatenate([[0], np.cumsum(values)])
    return sums[1:] - sums[first[label]]


def _largest_from(values: Floats, label: Integers, num_classes: int) -> Floats:
    """Return the largest of each value and those behind it in its class."""
    level = 2.0 * (num_classes - 1 - label)  # above all values of later classes
    return np.maximum.accumulate((values + level)[::-1])[::-1] - level


def _needed(objects: Integers) -> Integers:
    """Return how many true positives reach each level of recall in each class (K, 101), as floats compare."""
    total = np.maximum(objects, 1)[:, None]
    guess = np.floor(RECALLS * total).astype(np.int64)
    candidates = np.stack([guess - 1, guess, guess + 1])
    reached = candidates / total >= RECALLS
    return np.take_along_axis(candidates, reached.argmax(axis=0)[None], axis=0)[0]


def _at_recalls(best: Floats, true: Integers, label: Integers, needed: Integers) -> Floats:
    """Return the precision at the first detection of each class with enough true positives, else 0: (K, 101)."""
    num_classes = len(needed)
    step = int(max(true.max(initial=0), needed.max(initial=0))) + 1
    wanted = np.arange(num_classes)[:, None] * step + np.maximum(needed, 0)
    found = np.searchsorted(label * step + true, wanted)
    end = np.searchsorted(label, np.arange(num_classes), side="right")[:, None]
    padded = np.append(best, 0.0)
    return np.where(found < end, padded[np.minimum(found, len(best))], 0.0)
