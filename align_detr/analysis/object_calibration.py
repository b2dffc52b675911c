"""Object-level calibration error (OCE): what all detections of an object together say of its class."""

import numpy as np

from align_detr.analysis.matching import Matching
from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results, Values, ratio
from align_detr.analysis.samples import same_boxes
from align_detr.analysis.tables import Floats, Integers

LEVELS = (0.5, 0.75)
"""IoUs from which a box is one of an object."""


class ObjectCalibrationError:
    """OCE (Park et al., arXiv 2412.01782): Brier score of the mean of the scores of an object's boxes.

    The boxes of an object y of class c are the detected ones of its image that overlap it by an IoU of at least .5; p
    is the mean of their vectors of scores, one entry per class. The error of the object is

        sum over classes k of (1[k = c] - p_k)^2,

    1 without such a box; the same is done for an IoU of .75. `oce` is the mean over both and over all objects, crowds
    left out: 0 at best, 1 where nothing is detected, K at worst.

    A results file lists scores of classes, not vectors: detections of one box in one image are one vector, whose
    entries are 0 for classes that the file does not list there (and the best score of a class that it lists twice).
    OCE judges a detector with its post-processing. Here that is the report's recommended threshold: boxes of which at
    least one class reaches its threshold, with all their scores. Over a file without thresholds the many boxes of low
    scores would bring every detector near 1; thresholds of 0 give that value.

    The thresholds are those of the whole set, also where images are drawn several times.
    """

    def __init__(self, results: Results, thresholds: Floats, matching: Matching | None = None) -> None:
        """Prepare for the `thresholds` (K,) of the score; NaN lets none of a class pass.

        `matching`: whose objects count, those of all areas by default.
        """
        counts = (results.matching if matching is None else matching).object_counts
        objects = results.truth.objects
        self._image, self._label = objects.image[counts], objects.label[counts]
        self._error = object_errors(results, thresholds)[counts]
        self._num_classes = results.truth.num_classes

    def __call__(self, copies: Integers) -> Values:
        """Return `oce` for a set that has `copies` (I,) of each image."""
        drawn = copies[self._image]
        error = np.bincount(self._label, drawn * self._error, self._num_classes)
        objects = np.bincount(self._label, drawn, self._num_classes)
        return Values({"oce": float(ratio(error.sum(), objects.sum()))}, {"oce": ratio(error, objects)})


def object_errors(results: Results, thresholds: Floats) -> Floats:
    """Return the error of each object (G,), the mean of both levels of IoU."""
    pairs = results.overlaps
    pairs = pairs.select((pairs.iou >= min(LEVELS)) & ~results.truth.objects.crowd[pairs.object])
    found = results.detections
    box = same_boxes(found.image[pairs.detection], found.box[pairs.detection])
    passes = np.zeros(box.max(initial=-1) + 1, dtype=bool)
    passes[box[found.score[pairs.detection] >= thresholds[found.label[pairs.detection]]]] = True
    pairs, box = pairs.select(passes[box]), box[passes[box]]
    errors = [_brier(results, pairs.select(keep), box[keep]) for keep in (pairs.iou >= level for level in LEVELS)]
    return np.mean(errors, axis=0)


def _brier(results: Results, pairs: Overlaps, box: Integers) -> Floats:
    """Return the error of each object (G,) whose boxes are those of the pairs."""
    found, objects, num_classes = results.detections, results.truth.objects, results.truth.num_classes
    label = found.label[pairs.detection]
    order = np.lexsort((pairs.detection, label, box, pairs.object))  # within a box and class by falling score
    of, box, label = pairs.object[order], box[order], label[order]
    new_box, new_entry = (np.ones(len(order), dtype=bool) for _ in range(2))
    new_box[1:] = (of[1:] != of[:-1]) | (box[1:] != box[:-1])
    new_entry[1:] = new_box[1:] | (label[1:] != label[:-1])
    boxes = np.bincount(of[new_box], minlength=len(objects))
    key, entry = np.unique(of[new_entry] * num_classes + label[new_entry], return_inverse=True)
    of, label = np.divmod(key, num_classes)
    mean = np.bincount(entry, found.score[pairs.detection[order][new_entry]], len(key)) / boxes[of]
    is_right = label == objects.label[of]
    errors = np.ones(len(objects))
    errors += np.bincount(of, mean**2 - 2 * mean * is_right, len(objects))
    return errors
