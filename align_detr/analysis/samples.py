"""Best-regressed and most confident samples: the two kinds of the Align-DETR paper (section 1, figure 1).

The paper defines them in words. Our reading: the best-regressed sample of an object is the detection of its class in
its image that overlaps it most. The most confident samples of an image are those of its highest scores, of whatever
class. Crowds are no objects.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results, computed_once
from align_detr.analysis.tables import Flags, Floats, Integers, first_largest


@computed_once
def best_regressed(results: Results) -> Overlaps:
    """Return the pair of each object with its best-regressed sample, sorted by object.

    Of samples that overlap it alike, the one of the higher score is it, and then the first entry. Objects that no
    detection of their class overlaps have none.
    """
    pairs = results.class_overlaps
    return _best_per_object(pairs, np.lexsort((pairs.detection, pairs.object)))


@computed_once
def best_regressed_of_any_class(results: Results) -> Overlaps:
    """Return the same with detections of whatever class; of samples that overlap it alike, that of the best box."""
    pairs = results.overlaps.select(~results.truth.objects.crowd[results.overlaps.object])
    return _best_per_object(pairs, np.lexsort((rank_of_box(results)[pairs.detection], pairs.object)))


@computed_once
def best_object(results: Results) -> tuple[Integers, Floats]:
    """Return the object (D,) of its class that each detection overlaps most, -1 for none, and the IoU (D,), then 0."""
    pairs = results.class_overlaps
    best = pairs.select(first_largest(pairs.iou, pairs.detection))
    of, iou = np.full(len(results.detections), -1), np.zeros(len(results.detections))
    of[best.detection], iou[best.detection] = best.object, best.iou
    return of, iou


@computed_once
def rank_of_box(results: Results) -> Integers:
    """Return how many boxes of its image come before the box of each detection (D,).

    Detections of one box in one image are one sample, which has their best score.
    """
    order = results.by_confidence
    image, box = results.detections.image[order], same_boxes(results.detections.image, results.detections.box)[order]
    first = np.empty(box.max(initial=-1) + 1, dtype=np.int64)  # where each box comes first
    first[box[::-1]] = np.arange(len(order))[::-1]
    is_first = np.zeros(len(order), dtype=np.int64)
    is_first[first] = 1
    before = np.cumsum(is_first) - is_first
    before -= before[np.searchsorted(image, image)]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = before[first[box]]
    return rank


def same_boxes(image: Integers, box: Floats) -> Integers:
    """Return a number from 0 per detection (D,) that is the same for those of one `box` (D, 4) in one `image` (D,)."""
    columns = (image, *(box.T + 0.0))  # + 0: makes -0.0 the number that it equals
    mixed = _mixed(columns)
    order = np.argsort(mixed)  # five times faster than by all columns
    changes = _changes(columns, order)
    if np.any(changes & ~_changes([mixed], order)):  # two boxes share a number
        order = np.lexsort(columns)
        changes = _changes(columns, order)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(changes)
    return number


def objects_per_image(results: Results) -> Integers:
    """Return the number of objects (I,) without crowds: N of an image."""
    objects = results.truth.objects
    return np.bincount(objects.image[~objects.crowd], minlength=results.truth.num_images)


def _best_per_object(pairs: Overlaps, order: Integers) -> Overlaps:
    ordered = pairs.select(order)
    return ordered.select(first_largest(ordered.iou, ordered.object))


def _mixed(columns: Sequence[Integers | Floats]) -> NDArray[np.uint64]:
    """Return a number per row that different rows hardly share."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        mixed = (mixed ^ column.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)  # odd: loses nothing
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _changes(columns: Sequence[NDArray[Any]], order: Integers) -> Flags:
    """Return whether each row differs from the one before it in `order`; the first does not."""
    changes = np.zeros(len(order), dtype=bool)
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    return changes
