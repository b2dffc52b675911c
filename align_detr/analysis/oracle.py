"""Precision with scores that are true IoUs."""

import numpy as np

from align_detr.analysis.matching import Matches, match
from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.precision import PrecisionCurves
from align_detr.analysis.results import Results
from align_detr.analysis.samples import best_object
from align_detr.analysis.tables import Detections, Floats, Integers


def prepare_oracle(results: Results, area: str) -> tuple[PrecisionCurves, PrecisionCurves]:
    """Prepare with the IoU of each detection as its score; and with that of the best box of each object alone.

    Detections below the lowest threshold stand behind all true positives, where they change no precision. The best
    boxes are those that are matched at the lowest threshold, by falling IoU, so that no two are of one object.
    """
    found, pairs, objects = results.detections, results.overlaps, results.truth.objects
    _, iou = best_object(results)
    lowest = results.matching_of(area).thresholds.min()
    rescored, place = _rescored(found, np.flatnonzero(iou >= lowest), iou)
    same = found.label[pairs.detection] == objects.label[pairs.object]
    kept = pairs.select((pairs.iou >= lowest) & same & (place[pairs.detection] >= 0))
    moved = _moved(kept, place)
    matching = match(results.truth, rescored, moved, area=area, max_detections=results.max_detections)
    oracle = PrecisionCurves(results.truth, rescored, matching)
    return oracle, _prepare_best(results, rescored, matching.at[0].true_positives(), area)


def _prepare_best(results: Results, found: Detections, best: Matches, area: str) -> PrecisionCurves:
    """Prepare with the detections of pairs of one detection and one object each."""
    iou = np.zeros(len(found))
    iou[best.detection] = best.iou
    rescored, place = _rescored(found, best.detection, iou)
    pairs = _moved(Overlaps(best.detection, best.object, best.iou), place)
    matching = match(results.truth, rescored, pairs, area=area, max_detections=results.max_detections)
    return PrecisionCurves(results.truth, rescored, matching)


def _rescored(found: Detections, keep: Integers, score: Floats) -> tuple[Detections, Integers]:
    """Return some detections with other scores, and the place of each detection (D,) among them, or -1."""
    few = Detections(found.image[keep], found.label[keep], found.score[keep], found.box[keep], found.entry[keep])
    rescored, order = few.with_scores(score[keep])
    place = np.full(len(found), -1)
    place[keep[order]] = np.arange(len(keep))
    return rescored, place


def _moved(pairs: Overlaps, place: Integers) -> Overlaps:
    """Return pairs whose detections have other places."""
    detection = place[pairs.detection]
    again = np.lexsort((pairs.object, detection))
    return Overlaps(detection[again], pairs.object[again], pairs.iou[again])
