"""What keeps AP50 from 100: the AP50 lost by each type of error."""

from dataclasses import dataclass

import numpy as np

from align_detr.analysis.counting import GroupCounts, sums_in_class
from align_detr.analysis.matching import Matching
from align_detr.analysis.precision import precision_at_recalls
from align_detr.analysis.results import Results, Values, mean_over_classes
from align_detr.analysis.tables import Flags, Floats, Integers, first_largest

FOREGROUND, BACKGROUND = 0.5, 0.1
"""IoUs from which a detection is of an object, and up to which it is of none."""

TYPES = ("error_cls", "error_loc", "error_both", "error_dupe", "error_bkg")
_CLS, _LOC, _BOTH, _DUPE, _BKG = range(5)


class ErrorTypes:
    """AP50 lost by each type of error (TIDE: Bolya et al., arXiv 2008.08115), in points of AP50.

    Each false positive of COCO's matching at IoU .5 is of the first type that fits, by its IoU with objects (crowds
    left out, matched or not):

    - `error_loc`: the best object of its class has an IoU from .1 to below .5;
    - `error_cls`: the best object of another class has .5 or more;
    - `error_dupe`: the best object of its class has .5 or more, so that a better detection has it;
    - `error_bkg`: no object has more than .1;
    - `error_both`: the rest, of another class and badly placed.

    `error_miss` is of objects that are not found and that no error of class or place stands for. The AP50 lost by a
    type is AP50 with all its errors corrected, minus AP50: an error of class or place becomes a true positive, of the
    object's class, if its object is not found and no other of these two types for that object has a higher score, and
    else is removed; the other false positives are removed; missed objects are not counted.

    Types and corrections are those of the authors' code (tidecv), also that errors of class and of place compete for an
    object. It differs where the paper does not say so: false positives are COCO's (the code also corrects detections
    that a crowd excuses); an IoU of exactly .5 is no error of place; a class whose objects are all missed loses 100
    points by that (in the code 0 if the class has detections); AP50 is of the best 100 detections per image and class
    (in the code per image) and the mean over classes with objects (in the code also over those with detections alone).
    The values do not add up to 100 - AP50.
    """

    def __init__(self, results: Results, matching: Matching | None = None) -> None:
        """Prepare for a matching whose first threshold is .5: `results.matching`, or that of a range of areas."""
        matching = results.matching if matching is None else matching
        found, objects, self._num_classes = results.detections, results.truth.objects, results.truth.num_classes
        wrong = _classify(results, matching)
        fixed = wrong.fixed()
        pairs = matching.at[0].true_positives()
        moved = fixed & (wrong.type == _CLS)
        placed = fixed & (wrong.type == _LOC)

        # true positives, now or after a correction, in the order of detections: the key of detection d is 2 d + 1
        target = objects.label[wrong.object[moved]]
        keys = [2 * pairs.detection + 1, 2 * wrong.detection[placed] + 1]
        keys.append(2 * _behind_equals(results, target, found.score[wrong.detection[moved]]))
        detection = np.concatenate([pairs.detection, wrong.detection[placed], wrong.detection[moved]])
        label = np.concatenate([found.label[pairs.detection], found.label[wrong.detection[placed]], target])
        key, kind = np.concatenate(keys), np.repeat([-1, _LOC, _CLS], [len(each) for each in keys])
        order = np.lexsort((label, key))
        self._label, self._kind, key = label[order], kind[order], key[order]
        self._image = found.image[detection[order]]
        self._first = np.searchsorted(self._label, self._label)

        before = np.searchsorted(key, 2 * wrong.detection + 1)
        counts = before < len(key)
        counts[counts] = self._label[before[counts]] == found.label[wrong.detection[counts]]
        cell = before[counts] * len(TYPES) + wrong.type[counts]
        self._wrong = GroupCounts(found.image[wrong.detection[counts]], cell, len(key) * len(TYPES))

        kept = matching.object_counts
        missed = kept & ~wrong.is_found
        missed[wrong.object[wrong.corrects]] = False
        self._objects = GroupCounts(objects.image[kept], objects.label[kept], self._num_classes)
        self._missed = GroupCounts(objects.image[missed], objects.label[missed], self._num_classes)

    def __call__(self, copies: Integers) -> Values:
        """Return the AP50 lost by each type for a set that has `copies` (I,) of each image."""
        drawn, objects = copies[self._image], self._objects(copies)
        wrong = self._wrong(copies).reshape(-1, len(TYPES))
        wrong = np.stack([sums_in_class(column, self._first) for column in wrong.T])
        false, true = wrong.sum(axis=0), sums_in_class(drawn * (self._kind < 0), self._first)
        precision = self._precision(true, false, objects)
        per_class = {}
        for index, name in enumerate(TYPES):
            corrected = true
            if index in (_CLS, _LOC):
                corrected = true + sums_in_class(drawn * (self._kind == index), self._first)
            per_class[name] = self._precision(corrected, false - wrong[index], objects) - precision
        left = objects - self._missed(copies)
        without = np.where((left == 0) & (objects > 0), 100.0, self._precision(true, false, left))
        per_class["error_miss"] = without - precision
        return Values({name: mean_over_classes(values) for name, values in per_class.items()}, per_class)

    def _precision(self, true: Integers, false: Integers, objects: Integers) -> Floats:
        return 100 * precision_at_recalls(true, false, self._label, objects).mean(axis=1)


@dataclass(frozen=True)
class _FalsePositives:
    """False positives (N,): index of the detection, type, index of the object that it would be of (-1 for none), and
    whether it may be corrected to be that; `is_found` (G,) of the objects.
    """

    detection: Integers
    score: Floats
    entry: Integers
    type: Integers
    object: Integers
    corrects: Flags
    is_found: Flags

    def fixed(self) -> Flags:
        """Return which (N,) become true positives: the best of each object."""
        candidates = np.flatnonzero(self.corrects)
        columns = (self.entry[candidates], -self.score[candidates], self.object[candidates])
        candidates = candidates[np.lexsort(columns)]
        of = self.object[candidates]
        first = np.ones(len(of), dtype=bool)
        first[1:] = of[1:] != of[:-1]
        fixed = np.zeros(len(self.detection), dtype=bool)
        fixed[candidates[first]] = True
        return fixed


def _classify(results: Results, matching: Matching) -> _FalsePositives:
    found, objects = results.detections, results.truth.objects
    is_wrong = matching.false_positives(0)
    detection = np.flatnonzero(is_wrong)
    (same_of, same), (other_of, other) = (_best(results, is_wrong, of_class) for of_class in (True, False))
    conditions = [
        (same >= BACKGROUND) & (same < FOREGROUND),
        other >= FOREGROUND,
        same >= FOREGROUND,
        np.maximum(same, other) <= BACKGROUND,
    ]
    kind = np.select(conditions, [_LOC, _CLS, _DUPE, _BKG], _BOTH)[detection]
    of = np.select([kind == _LOC, kind == _CLS], [same_of[detection], other_of[detection]], -1)
    is_found = np.zeros(len(objects), dtype=bool)
    is_found[matching.at[0].object] = True
    free = np.append(matching.object_counts & ~is_found, False)  # of object -1
    return _FalsePositives(detection, found.score[detection], found.entry[detection], kind, of, free[of], is_found)


def _best(results: Results, is_wrong: Flags, of_class: bool) -> tuple[Integers, Floats]:
    """Return the object (D,), of a detection's class or of another, that it overlaps most, and the IoU (D,), else 0."""
    found, objects, pairs = results.detections, results.truth.objects, results.overlaps
    same = found.label[pairs.detection] == objects.label[pairs.object]
    pairs = pairs.select((same == of_class) & is_wrong[pairs.detection] & ~objects.crowd[pairs.object])
    best = pairs.select(first_largest(pairs.iou, pairs.detection))
    of, iou = np.full(len(found), -1), np.zeros(len(found))
    of[best.detection], iou[best.detection] = best.object, best.iou
    return of, iou


def _behind_equals(results: Results, label: Integers, score: Floats) -> Integers:
    """Return the index of the detection before which one of a class and score stands, behind all equal ones."""
    found = results.detections
    place = np.empty(len(label), dtype=np.int64)
    for of in np.unique(label).tolist():
        rows = np.flatnonzero(label == of)
        begin, end = np.searchsorted(found.label, [of, of + 1])
        place[rows] = begin + np.searchsorted(-found.score[begin:end], -score[rows], side="right")
    return place
