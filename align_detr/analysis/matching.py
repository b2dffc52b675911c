"""COCO's greedy matching of detections with objects, at several thresholds of IoU and for one range of areas."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.tables import Detections, Flags, Floats, Integers, Truth

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds of IoU."""

AREAS = {
    "": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""COCO's ranges of areas in pixels; "" is for all."""

_NEARLY_ONE = 1 - 1e-10  # pycocotools' bound on a threshold


@dataclass(frozen=True)
class Matches:
    """Pairs of a detection and the object that it is matched with, sorted by detection.

    `detection` (M,), `object` (M,): indices. `iou` (M,). `counts` (M,): whether the object counts; matches with others
    (crowds, objects of other areas) are neither right nor wrong.
    """

    detection: Integers
    object: Integers
    iou: Floats
    counts: Flags

    def true_positives(self) -> "Matches":
        """Return the pairs whose object counts."""
        keep = self.counts
        return Matches(self.detection[keep], self.object[keep], self.iou[keep], self.counts[keep])


@dataclass(frozen=True)
class Matching:
    """Matches at each threshold, and which detections and objects count.

    `at`: one Matches per threshold of `thresholds` (T,). `object_counts` (G,): no crowd, and of the range of areas.
    `unmatched_counts` (D,): whether a detection is a false positive if it has no match: it is among the best of its
    image and class, and of the range of areas.
    """

    thresholds: Floats
    at: Sequence[Matches]
    object_counts: Flags
    unmatched_counts: Flags

    def false_positives(self, index: int) -> Flags:
        """Return which detections (D,) are false positives at the threshold of an index."""
        wrong = self.unmatched_counts.copy()
        wrong[self.at[index].detection] = False
        return wrong


def match(
    truth: Truth,
    detections: Detections,
    overlaps: Overlaps,
    *,
    area: str = "",
    thresholds: Floats = THRESHOLDS,
    max_detections: int = 100,
) -> Matching:
    """Match as pycocotools does: by falling score, each with the free object of its class and image that it overlaps
    most, by the threshold or more; with an object that does not count only if no other is left.

    `area`: a key of AREAS. `max_detections`: how many of the best of an image and class take part.
    """
    low, high = AREAS[area]
    objects = truth.objects
    counts = ~objects.crowd & (objects.area >= low) & (objects.area <= high)
    kept = detections.rank_in_class < max_detections
    size = detections.box[:, 2] * detections.box[:, 3]
    bounds = np.minimum(thresholds, _NEARLY_ONE)
    pairs = overlaps.select(
        (detections.label[overlaps.detection] == objects.label[overlaps.object])
        & kept[overlaps.detection]
        & (overlaps.iou >= bounds.min())
    )
    alone, groups = _split(pairs, counts, objects.crowd)
    at = []
    for bound in bounds:
        chosen = [
            _first_per_object(pairs, alone, objects.crowd, bound),
            *(_match_group(each, bound) for each in groups),
        ]
        at.append(_as_matches(pairs, np.sort(np.concatenate(chosen)), counts))
    return Matching(thresholds, at, counts, kept & (size >= low) & (size <= high))


_Candidate = list[tuple[int, int, float, bool, bool]]
"""Pairs of one detection: (index of the pair, object, IoU, counts, crowd), those with objects that count first."""


def _split(pairs: Overlaps, counts: Flags, crowd: Flags) -> tuple[Integers, list[list[_Candidate]]]:
    """Return the pairs of objects that share no detection with another, sorted by object and detection, and the other
    pairs in groups that share none.
    """
    if not len(pairs):
        return np.zeros(0, dtype=np.int64), []
    _, detection = np.unique(pairs.detection, return_inverse=True)
    _, of = np.unique(pairs.object, return_inverse=True)
    size = detection.max() + of.max() + 2
    edges = coo_array((np.ones(len(pairs), dtype=bool), (detection, detection.max() + 1 + of)), shape=(size, size))
    group = connected_components(edges, directed=False)[1][detection]
    objects_of_group = np.zeros(group.max() + 1, dtype=np.int64)
    np.add.at(objects_of_group, group[np.unique(of, return_index=True)[1]], 1)
    shared = objects_of_group[group] > 1
    alone = np.flatnonzero(~shared)
    alone = alone[np.lexsort((pairs.detection[alone], pairs.object[alone]))]
    rest = np.flatnonzero(shared)
    rest = rest[np.lexsort((pairs.object[rest], ~counts[pairs.object[rest]], pairs.detection[rest], group[rest]))]
    return alone, list(_groups(pairs, rest, group, counts, crowd))


def _groups(
    pairs: Overlaps, rest: Integers, group: Integers, counts: Flags, crowd: Flags
) -> Iterator[list[_Candidate]]:
    of = pairs.object[rest]
    columns = (group[rest], pairs.detection[rest], rest, of, pairs.iou[rest], counts[of], crowd[of])
    groups: dict[int, dict[int, _Candidate]] = defaultdict(dict)
    for number, detection, *pair in zip(*(column.tolist() for column in columns), strict=True):
        groups[number].setdefault(detection, []).append((pair[0], pair[1], pair[2], pair[3], pair[4]))
    for candidates in groups.values():
        yield list(candidates.values())


def _first_per_object(pairs: Overlaps, alone: Integers, crowd: Flags, bound: float) -> Integers:
    """Return, per object, its first pair of an IoU of at least `bound`; of crowds all of them."""
    enough = alone[pairs.iou[alone] >= bound]
    of = pairs.object[enough]
    first = np.ones(len(of), dtype=bool)
    first[1:] = of[1:] != of[:-1]
    return enough[first | crowd[of]]


def _match_group(candidates: Sequence[_Candidate], bound: float) -> Integers:
    """Return the pairs that are matched where detections compete for objects."""
    taken: set[int] = set()
    chosen = []
    for candidate in candidates:
        best, overlap, best_counts = None, bound, False
        for pair, of, iou, counts, crowd in candidate:
            if best is not None and best_counts and not counts:
                break
            if iou >= overlap and (crowd or of not in taken):
                best, overlap, best_counts = (pair, of), iou, counts
        if best is not None:
            chosen.append(best[0])
            taken.add(best[1])
    return np.array(chosen, dtype=np.int64)


def _as_matches(pairs: Overlaps, chosen: Integers, counts: Flags) -> Matches:
    of = pairs.object[chosen]
    return Matches(pairs.detection[chosen], of, pairs.iou[chosen], counts[of])
