"""Recall of best-regressed samples, the metric of the Align-DETR paper, and the IoUs of both kinds of samples."""

import numpy as np

from align_detr.analysis.matching import Matching
from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results, Values, ratio
from align_detr.analysis.samples import (
    best_object,
    best_regressed,
    best_regressed_of_any_class,
    objects_per_image,
    rank_of_box,
)
from align_detr.analysis.tables import Flags, Floats, Integers

MULTIPLES = (1, 2, 3, 5, 10)
"""How many of the most confident samples are taken, as multiples of the number N of an image's objects."""

IOU_EDGES: Floats = np.linspace(0.0, 1.0, 21)
"""Edges of the histograms of IoU; 1 belongs to the last bin."""

_NAME = "recall_best_regressed"


class BestRegressedRecall:
    """Share of objects whose best-regressed sample is among the k N most confident samples of its image.

    N is the number of objects of the image. `recall_best_regressed` is that with k = 1, `recall_best_regressed_2N` and
    so on with more. An object without a sample is not recalled. `recall_best_regressed_any_class` is of boxes alone,
    k = 1: the sample that overlaps the object most may be of any class, and detections of one box are one sample with
    their best score. All detections of the file take part.
    """

    def __init__(self, results: Results, matching: Matching | None = None) -> None:
        """Prepare for the objects that count in `matching`, by default all."""
        objects = results.truth.objects
        counts = np.flatnonzero((results.matching if matching is None else matching).object_counts)
        self._image, self._label = objects.image[counts], objects.label[counts]
        self._num_classes = results.truth.num_classes
        pairs, rank = best_regressed(results), results.rank_in_image
        recalled = {_name(multiple): _among(results, pairs, rank, multiple) for multiple in MULTIPLES}
        pairs, rank = best_regressed_of_any_class(results), rank_of_box(results)
        recalled[f"{_NAME}_any_class"] = _among(results, pairs, rank, 1)
        self._recalled = {name: each[counts] for name, each in recalled.items()}

    def __call__(self, copies: Integers) -> Values:
        """Return the shares for a set that has `copies` (I,) of each image."""
        drawn = copies[self._image]
        objects = np.bincount(self._label, drawn, self._num_classes)
        recalled = {
            name: np.bincount(self._label[each], drawn[each], self._num_classes)
            for name, each in self._recalled.items()
        }
        return Values(
            {name: float(ratio(each.sum(), objects.sum())) for name, each in recalled.items()},
            {name: ratio(each, objects) for name, each in recalled.items()},
        )

    def curve(self, copies: Integers) -> Floats:
        """Return the share at each of MULTIPLES."""
        values = self(copies).overall
        return np.array([values[_name(multiple)] for multiple in MULTIPLES])


def iou_histograms(results: Results) -> dict[str, Floats]:
    """Return the shares of samples in the bins between IOU_EDGES.

    `best_regressed`: IoU of best-regressed samples with their object; objects without one are left out.
    `most_confident`: IoU of the N most confident samples of each image with the best object of their class, 0 without
    one. NaN stands where there are no samples.
    """
    _, iou = best_object(results)
    allowed = objects_per_image(results)[results.detections.image]
    confident = iou[results.rank_in_image < allowed]
    samples = {"best_regressed": best_regressed(results).iou, "most_confident": confident}
    counts = {name: np.histogram(each, IOU_EDGES)[0] for name, each in samples.items()}
    return {name: ratio(each, each.sum()) for name, each in counts.items()}


def _name(multiple: int) -> str:
    return _NAME if multiple == 1 else f"{_NAME}_{multiple}N"


def _among(results: Results, pairs: Overlaps, rank: Integers, multiple: int) -> Flags:
    """Return whether the sample (of `pairs`) of each object (G,) is among the `multiple` N first of its image."""
    objects = results.truth.objects
    found = np.zeros(len(objects), dtype=bool)
    allowed = multiple * objects_per_image(results)[objects.image[pairs.object]]
    found[pairs.object] = rank[pairs.detection] < allowed
    return found
