"""COCO's average precision under weights of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.analysis.matching import Matches, Matching
from align_detr.analysis.tables import Detections, Flags, Floats, Integers, Truth

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""COCO's levels of recall."""


class PrecisionCurves:
    """Precision at COCO's levels of recall, per threshold and class, for any number of copies of each image.

    Sorting and matching are done once; a call takes milliseconds. Detections behind the last match of their class
    change no precision and are left out. All copies of a detection stand together: the precision is that of a set with
    these copies, unless an image has several detections of one class and score, whose copies would take turns there.
    """

    def __init__(self, truth: Truth, detections: Detections, matching: Matching) -> None:
        counting = np.flatnonzero(matching.object_counts)
        self._object_image = truth.objects.image[counting]
        self._object_label = truth.objects.label[counting]
        self._num_classes, self._num_thresholds = truth.num_classes, len(matching.at)
        matched, self._threshold = _together(matching.at)
        label, at = detections.label[matched.detection], matched.detection
        self._group = self._threshold * self._num_classes + label
        self._first = np.searchsorted(self._group, self._group)  # of each match, the first of its group
        self._image, self._counts = detections.image[at], matched.counts
        self._excused = matching.unmatched_counts[at]  # would be wrong without its match
        wrong = np.flatnonzero(_before_last(detections.label, at, self._num_classes) & matching.unmatched_counts)
        self._wrong_image = detections.image[wrong]
        self._wrong_before = np.searchsorted(wrong, at)
        self._wrong_first = np.searchsorted(detections.label[wrong], label)
        self._right = np.flatnonzero(matched.counts)
        self._right_group = self._group[self._right]
        self._right_level = _levels(self._right_group % self._num_classes, self._num_classes)
        self._right_threshold = np.searchsorted(self._threshold[self._right], np.arange(self._num_thresholds + 1))

    def __call__(self, copies: Integers) -> Floats:
        """Return the precision (T, K, 101) with `copies` (I,) of each image; NaN for classes without objects."""
        objects = np.bincount(self._object_label, copies[self._object_image], self._num_classes).astype(np.int64)
        small = _smallest(copies, max(len(self._wrong_image), len(self._image)))
        drawn = small[self._image]
        wrong = _sums_before(small[self._wrong_image])
        excused = _sums_before(drawn * self._excused)
        right = _sums_before(drawn * self._counts)
        false = wrong[self._wrong_before] - wrong[self._wrong_first] - (excused[:-1] - excused[self._first])
        true = (right[1:] - right[self._first])[self._right]
        precision = true / (false[self._right] + true + np.spacing(1))
        for start, stop in zip(self._right_threshold, self._right_threshold[1:], strict=False):
            precision[start:stop] = _largest_from(precision[start:stop], self._right_level[start:stop])
        needed = np.tile(_needed(objects), (self._num_thresholds, 1))
        curves = _at_recalls(precision, true, self._right_group, needed)
        curves = curves.reshape(self._num_thresholds, self._num_classes, len(RECALLS))
        curves[:, objects == 0] = np.nan
        return curves


def precision_at_recalls(true: Integers, false: Integers, label: Integers, objects: Integers) -> Floats:
    """Return the precision (K, 101) at COCO's levels of recall; NaN for classes without `objects` (K,).

    `true`, `false` (N,): numbers of true and false positives of its class up to each of N detections, which are sorted
    by class, `label` (N,), and falling score; all true positives are among the N.
    """
    best = _largest_from(true / (false + true + np.spacing(1)), _levels(label, len(objects)))
    curves = _at_recalls(best, true, label, _needed(objects))
    curves[objects == 0] = np.nan
    return curves


def mean_precision(curves: Floats) -> float:
    """Return the mean of precision curves in percent, of those classes that have objects; NaN if none has."""
    present = curves[~np.isnan(curves)]
    return float(present.mean() * 100) if len(present) else float("nan")


def _together(at: Sequence[Matches]) -> tuple[Matches, Integers]:
    """Return the matches at all thresholds, those of a lower one first, and the index of each one's threshold."""
    columns = ([getattr(each, name) for each in at] for name in ("detection", "object", "iou", "counts"))
    threshold = np.repeat(np.arange(len(at)), [len(each.detection) for each in at])
    return Matches(*(np.concatenate(column) for column in columns)), threshold


def _before_last(label: Integers, at: Integers, num_classes: int) -> Flags:
    """Return which detections stand before the last of the detections `at` in their class."""
    last = np.full(num_classes, -1)
    np.maximum.at(last, label[at], at)
    return np.arange(len(label)) < last[label]


def _sums_before(values: Integers) -> Integers:
    """Return the sums of all values before each, and of all: (n + 1,)."""
    sums = np.zeros(len(values) + 1, dtype=values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums


def _smallest(copies: Integers, number: int) -> NDArray[Any]:
    """Return `copies` as the type in which the sum of `number` of them is added up fastest."""
    return copies.astype(np.int32 if copies.max(initial=0) * number < 2**31 else np.int64)


def _levels(label: Integers, num_classes: int) -> Floats:
    """Return what lifts precisions above those of all later classes."""
    return np.asarray(2.0 * (num_classes - 1 - label), dtype=np.float64)


def _largest_from(values: Floats, level: Floats) -> Floats:
    """Return the largest of each value and those behind it in its class; `level` is that of `_levels`."""
    return np.maximum.accumulate((values + level)[::-1])[::-1] - level


def _needed(objects: Integers) -> Integers:
    """Return how many true positives reach each level of recall in each class (K, 101), as floats compare."""
    total = np.maximum(objects, 1)[:, None]
    guess = np.floor(RECALLS * total).astype(np.int64)
    candidates = np.stack([guess - 1, guess, guess + 1])
    reached = candidates / total >= RECALLS
    return np.take_along_axis(candidates, reached.argmax(axis=0)[None], axis=0)[0]


def _at_recalls(best: Floats, true: Integers, group: Integers, needed: Integers) -> Floats:
    """Return the precision at the first match of each group with enough true positives, else 0: (groups, 101).

    `needed` (groups, 101) is how many are enough; none is what one true positive gives.
    """
    first = np.searchsorted(group, np.arange(len(needed) + 1))
    gained = np.diff(true, prepend=0)
    begins = first[:-1][first[:-1] < first[1:]]
    gained[begins] = true[begins]
    of_each = np.append(np.repeat(best, gained), 0.0)  # the precision at each true positive
    total = np.concatenate([[0], np.cumsum(gained)])[first]
    at = total[:-1, None] + np.maximum(needed, 1) - 1
    return of_each[np.where(at < total[1:, None], at, -1)]
