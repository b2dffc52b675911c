"""Several detections of one object."""

from typing import Any

import numpy as np

from align_detr.analysis.counting import GroupCounts
from align_detr.analysis.matching import Matching
from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results, Values, ratio
from align_detr.analysis.tables import Floats, Integers, first_largest, rank_in_groups

LEVELS = {"duplicates_50": 0.5, "duplicates_70": 0.7}
"""Name of a metric -> the IoU from which a detection is one of an object."""


class Duplicates:
    """Detections beyond the first of an object, per object.

    Of the detections at or above the threshold of their class, each is given to the object of its class and image that
    it overlaps most, if by an IoU of at least .5 (`duplicates_50`) or .7 (`duplicates_70`); the first of several equal
    ones. The duplicates are all but one of those of an object; crowds are no objects. The set's value counts all
    objects alike, whatever their class.

    The thresholds are those of the whole set, also where images are drawn several times: the detector is judged at the
    scores that it would be run with.
    """

    def __init__(self, results: Results, thresholds: Floats, matching: Matching | None = None) -> None:
        """Prepare for the `thresholds` (K,) of the score; NaN lets none of a class pass.

        `matching`: whose objects count, those of all areas by default.
        """
        matching = results.matching if matching is None else matching
        objects = results.truth.objects
        counts = matching.object_counts
        self._objects = GroupCounts(objects.image[counts], objects.label[counts], results.truth.num_classes)
        self._extra = {}
        for name, level in LEVELS.items():
            of = given_pairs(results, thresholds, level).object
            extra = of[(rank_in_groups(of) > 0) & counts[of]]
            self._extra[name] = GroupCounts(objects.image[extra], objects.label[extra], results.truth.num_classes)

    def __call__(self, copies: Integers) -> Values:
        """Return `duplicates_50` and `duplicates_70` for a set that has `copies` (I,) of each image."""
        objects = self._objects(copies)
        extra = {name: count(copies) for name, count in self._extra.items()}
        return Values(
            {name: float(ratio(count.sum(), objects.sum())) for name, count in extra.items()},
            {name: ratio(count, objects) for name, count in extra.items()},
        )


def given_pairs(results: Results, thresholds: Floats, level: float) -> Overlaps:
    """Return the pair of each detection at or above the threshold of its class with the object of its class that it
    overlaps most, if by an IoU of at least `level`.
    """
    found, pairs = results.detections, results.class_overlaps
    passes = found.score >= thresholds[found.label]
    pairs = pairs.select(passes[pairs.detection] & (pairs.iou >= level))
    return pairs.select(first_largest(pairs.iou, pairs.detection))


def list_duplicates(
    results: Results, thresholds: Floats, *, level: float = 0.7, limit: int = 50
) -> list[dict[str, Any]]:
    """Return the objects with the most duplicates, at most `limit`: image_id, file_name, class, object (its box), and
    the boxes and scores of its detections, the best score first. Objects of as many stand by the score of their second.
    """
    truth, found = results.truth, results.detections
    pairs = given_pairs(results, thresholds, level)
    order = np.lexsort((pairs.detection, pairs.object))  # within an object by falling score
    pairs = pairs.select(order)
    of, start, count = np.unique(pairs.object, return_index=True, return_counts=True)
    several = np.flatnonzero(count > 1)
    second = found.score[pairs.detection[start[several] + 1]]
    several = several[np.lexsort((of[several], -second, -count[several]))][:limit]
    cases = []
    for index in several.tolist():
        one, rows = of[index], pairs.detection[start[index] : start[index] + count[index]]
        image, label = truth.objects.image[one], truth.objects.label[one]
        cases.append(
            {
                "image_id": truth.image_ids[image],
                "file_name": truth.file_names[image],
                "class": truth.class_names[label],
                "object": truth.objects.box[one].tolist(),
                "boxes": found.box[rows].tolist(),
                "scores": found.score[rows].tolist(),
            }
        )
    return cases
