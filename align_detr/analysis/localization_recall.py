"""Optimal localization recall precision error (oLRP), its parts, and the score threshold that it recommends."""

from dataclasses import dataclass

import numpy as np

from align_detr.analysis.counting import GroupCounts, sums_in_class
from align_detr.analysis.matching import Matching
from align_detr.analysis.results import Results, Values, mean_over_classes, ratio
from align_detr.analysis.tables import Floats, Integers, first_largest


@dataclass(frozen=True)
class _Optimum:
    """Counts at the best threshold of each class (K,); NaN where a class has none."""

    objects: Integers
    right: Floats
    wrong: Floats
    distance: Floats  # sum of 1 - IoU over the true positives
    threshold: Floats


class LocalizationRecallPrecision:
    """oLRP per class and the threshold of the score where it is reached (Oksuz et al., arXiv 2011.10772).

    At a threshold s, the detections of a score of at least s count; with COCO's matching at IoU .5,

        LRP(s) = (FP + FN + sum over TP of (1 - IoU) / (1 - .5)) / (TP + FP + FN),

    and `olrp` is the smallest LRP(s) of a class, 0 at best. Its parts at that s are those of the authors' code:
    `olrp_localization`, the mean of 1 - IoU over the true positives (at most .5: not divided by 1 - .5),
    `olrp_false_positives` = FP / (TP + FP) and `olrp_false_negatives` = FN / (TP + FN).

    Every score of the file is tried as s, where some programs try 101 fixed ones. Detections of one score stand or fall
    together, for no threshold parts them; the authors' code takes them one by one. Of several best s the highest is
    recommended; none (NaN) if nothing is better than to detect nothing, where `olrp` is 1, `olrp_false_negatives` 1
    and the other parts NaN. Detections that are matched with crowds, or objects of other areas, are left out. Values
    of the set are means over the classes that have them; classes without objects have none.
    """

    def __init__(self, results: Results, matching: Matching | None = None) -> None:
        """Prepare for a matching whose first threshold is .5: `results.matching`, or that of a range of areas."""
        matching = results.matching if matching is None else matching
        found, objects = results.detections, results.truth.objects
        pairs = matching.at[0].true_positives()
        scores = _tied(found.label, found.score)  # number of each detection's score within all classes
        tried, self._at = np.unique(scores[pairs.detection], return_inverse=True)
        last = np.searchsorted(scores, tried)
        self._label, self._score = found.label[last], found.score[last]
        self._gain, self._distance = 2 * pairs.iou - 1, 1 - pairs.iou
        self._image = found.image[pairs.detection]

        wrong = np.flatnonzero(matching.false_positives(0))
        before = np.searchsorted(tried, scores[wrong])  # the first tried score that a false positive counts at
        counts = before < len(tried)
        counts[counts] = self._label[before[counts]] == found.label[wrong[counts]]
        self._wrong = GroupCounts(found.image[wrong[counts]], before[counts], len(tried))
        kept = matching.object_counts
        self._objects = GroupCounts(objects.image[kept], objects.label[kept], results.truth.num_classes)

    def __call__(self, copies: Integers) -> Values:
        """Return `olrp` and its parts for a set that has `copies` (I,) of each image."""
        best = self._optimum(copies)
        error = (best.objects + best.wrong - (best.right - 2 * best.distance)) / np.maximum(
            best.objects + best.wrong, 1
        )
        none = np.isnan(best.threshold)
        parts = {
            "olrp": np.where(none, 1.0, error),
            "olrp_localization": ratio(best.distance, best.right),
            "olrp_false_positives": ratio(best.wrong, best.right + best.wrong),
            "olrp_false_negatives": np.where(none, 1.0, ratio(best.objects - best.right, best.objects)),
        }
        per_class = {name: np.where(best.objects > 0, values, np.nan) for name, values in parts.items()}
        return Values({name: mean_over_classes(values) for name, values in per_class.items()}, per_class)

    def thresholds(self, copies: Integers) -> Floats:
        """Return the recommended threshold of each class (K,); NaN where there is none."""
        return self._optimum(copies).threshold

    def _optimum(self, copies: Integers) -> _Optimum:
        """Return the counts where the error is least.

        With n objects the error is 1 - gain / (n + FP), where a true positive gains 2 IoU - 1, so that it is least at a
        score of a true positive.
        """
        objects, number = self._objects(copies), len(self._label)
        drawn = copies[self._image]
        first = np.searchsorted(self._label, self._label)
        right, gain, distance, wrong = (
            sums_in_class(values, first)
            for values in (
                np.bincount(self._at, drawn, number),
                np.bincount(self._at, drawn * self._gain, number),
                np.bincount(self._at, drawn * self._distance, number),
                self._wrong(copies),
            )
        )
        best = first_largest(gain / np.maximum(objects[self._label] + wrong, 1), self._label)
        best = best[gain[best] > 0]
        label = self._label[best]
        columns = np.full((4, len(objects)), np.nan)
        columns[:, label] = right[best], wrong[best], distance[best], self._score[best]
        return _Optimum(objects, *columns)


def _tied(label: Integers, score: Floats) -> Integers:
    """Return a number per detection that rises by one with each class and each lower score in it."""
    changes = np.zeros(len(score), dtype=np.int64)
    changes[1:] = (label[1:] != label[:-1]) | (score[1:] != score[:-1])
    return np.cumsum(changes)
