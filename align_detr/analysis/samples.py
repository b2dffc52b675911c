"""Best-regressed and most confident samples: the two kinds of the Align-DETR paper (section 1, figure 1).

The paper defines them in words. Our reading: the best-regressed sample of an object is the detection of its class in
its image that overlaps it most. The most confident samples of an image are those of its highest scores, of whatever
class. Crowds are no objects.
"""

import numpy as np

from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results
from align_detr.analysis.tables import Detections, Floats, Integers, first_largest


def best_regressed(results: Results) -> Overlaps:
    """Return the pair of each object with its best-regressed sample, sorted by object.

    Of samples that overlap it alike, the one of the higher score is it, and then the first entry. Objects that no
    detection of their class overlaps have none.
    """
    pairs = results.class_overlaps
    return _best_per_object(pairs, np.lexsort((pairs.detection, pairs.object)))


def best_regressed_of_any_class(results: Results, rank: Integers) -> Overlaps:
    """Return the same with detections of whatever class; `rank` (D,) says which one of several equals it is."""
    pairs = results.overlaps.select(~results.truth.objects.crowd[results.overlaps.object])
    return _best_per_object(pairs, np.lexsort((pairs.detection, rank[pairs.detection], pairs.object)))


def best_object(results: Results) -> tuple[Integers, Floats]:
    """Return the object (D,) of its class that each detection overlaps most, -1 for none, and the IoU (D,), then 0."""
    pairs = results.class_overlaps
    best = pairs.select(first_largest(pairs.iou, pairs.detection))
    of, iou = np.full(len(results.detections), -1), np.zeros(len(results.detections))
    of[best.detection], iou[best.detection] = best.object, best.iou
    return of, iou


def rank_of_box(results: Results) -> Integers:
    """Return how many boxes of its image come before the box of each detection (D,).

    Detections of one box in one image are one sample, which has their best score.
    """
    order = results.by_confidence
    image, box = results.detections.image[order], same_boxes(results.detections)[order]
    first = np.empty(box.max(initial=-1) + 1, dtype=np.int64)  # where each box comes first
    first[box[::-1]] = np.arange(len(order))[::-1]
    is_first = np.zeros(len(order), dtype=np.int64)
    is_first[first] = 1
    before = np.cumsum(is_first) - is_first
    before -= before[np.searchsorted(image, image)]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = before[first[box]]
    return rank


def same_boxes(detections: Detections) -> Integers:
    """Return a number from 0 per detection (D,) that is the same for detections of one box in one image."""
    columns = (*(detections.box.T + 0.0), detections.image)  # + 0: makes -0.0 the number that it equals
    order = np.lexsort(columns)
    changes = np.zeros(len(order), dtype=bool)
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
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
