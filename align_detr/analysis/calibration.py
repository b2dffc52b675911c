"""Localization-aware calibration error (LaECE_0), before and after recalibration by isotonic regression."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from align_detr.analysis.matching import match
from align_detr.analysis.results import Results, Values, mean_over_classes, ratio
from align_detr.analysis.tables import Floats, Integers
from align_detr.errors import EnvironmentProblem

NUM_BINS = 25
EDGES: Floats = np.linspace(0.0, 1.0, NUM_BINS + 1)
"""Edges of the bins of scores; an edge belongs to the bin below it."""

_EXCUSED_BY_CROWD = 0.5  # share of a detection's area


@dataclass(frozen=True)
class Samples:
    """Confident detections that count: `image`, `label`, `score` and `quality` (N,), the last from 0 to 1."""

    image: Integers
    label: Integers
    score: Floats
    quality: Floats


class CalibrationError:
    """LaECE_0 (Kuzucu et al., arXiv 2405.20459): how far scores are from the quality that they promise.

    The quality of a detection is its IoU with the object that COCO's greedy matching gives it where any overlap is
    enough, and 0 without one. Per class, with D the detections at or above its threshold in 25 bins b of the score,

        LaECE_0 = sum over b of |D_b| / |D| * | mean score in D_b - mean quality in D_b |,

    and `lace` is the mean over the classes that have such detections. `lace_recalibrated` is the same of the same
    detections after `recalibrate`: what is left of it once scores are mapped to quality, class by class.

    The authors choose the thresholds on other images, as those of the smallest LRP at IoU 0; here they are the
    recommended ones of the report, of the smallest LRP at IoU .5, so that all its numbers are of the detections that
    a user would see. The authors' matching also pairs boxes that do not touch, with a quality of 0, which can take an
    object from a detection that does. A detection that no object is left for and of which a crowd of its class covers
    at least half is left out, and so are those that are matched with objects of other areas.

    The thresholds and the maps of recalibration are those of the whole set, also where images are drawn several times:
    the detector is judged as it would be run.
    """

    def __init__(self, results: Results, thresholds: Floats, area: str = "") -> None:
        """Prepare for the `thresholds` (K,) of the score, where NaN lets none of a class pass, and a range of areas.

        Raise EnvironmentProblem without scikit-learn.
        """
        self._num_classes = results.truth.num_classes
        self.samples = confident_samples(results, thresholds, area)
        self.recalibrated = replace(self.samples, score=recalibrate(self.samples))

    def __call__(self, copies: Integers) -> Values:
        """Return `lace` and `lace_recalibrated` for a set that has `copies` (I,) of each image."""
        per_class = {
            "lace": self._error(self.samples, copies),
            "lace_recalibrated": self._error(self.recalibrated, copies),
        }
        return Values({name: mean_over_classes(values) for name, values in per_class.items()}, per_class)

    def reliability(self) -> dict[str, Any]:
        """Return the reliability diagram of all classes together, before and after recalibration.

        `edges` (26,) of the bins; per bin (25,) `confidence`, the mean score, `quality`, the mean quality, both NaN in
        empty bins, and `count`, the number of detections; the same three under `recalibrated`.
        """
        return {"edges": EDGES, **_diagram(self.samples), "recalibrated": _diagram(self.recalibrated)}

    def _error(self, samples: Samples, copies: Integers) -> Floats:
        drawn = copies[samples.image].astype(np.float64)
        cell, number = samples.label * NUM_BINS + _bins(samples.score), self._num_classes * NUM_BINS
        gap = np.abs(np.bincount(cell, drawn * (samples.score - samples.quality), number))
        detections = np.bincount(samples.label, drawn, self._num_classes)
        return ratio(gap.reshape(-1, NUM_BINS).sum(axis=1), detections)


def confident_samples(results: Results, thresholds: Floats, area: str = "") -> Samples:
    """Return the detections at or above the threshold of their class that count, with their quality."""
    found, crowd, pairs = results.detections, results.truth.objects.crowd, results.overlaps
    passes = found.score >= thresholds[found.label]
    keep = passes[pairs.detection] & (~crowd[pairs.object] | (pairs.iou >= _EXCUSED_BY_CROWD))
    matching = match(
        results.truth,
        found,
        pairs.select(keep),
        area=area,
        thresholds=np.zeros(1),
        max_detections=results.max_detections,
    )
    counts, quality = matching.false_positives(0) & passes, np.zeros(len(found))
    right = matching.at[0].true_positives()
    counts[right.detection], quality[right.detection] = True, right.iou
    return Samples(found.image[counts], found.label[counts], found.score[counts], quality[counts])


def recalibrate(samples: Samples) -> Floats:
    """Return the scores (N,) mapped by the isotonic regression of quality on score, per class.

    The map of the images of even position is fitted to those of odd position, and the other way round, so that no
    image has part in its own map. Scores of a class that the other half has none of stay as they are. Raise
    EnvironmentProblem without scikit-learn.
    """
    try:
        from sklearn.isotonic import IsotonicRegression  # takes a second: only when needed
    except ImportError as error:
        raise EnvironmentProblem(
            f"Scores are recalibrated with scikit-learn, which cannot be imported ({error}): pip install scikit-learn."
        ) from error
    scores = samples.score.copy()
    half = samples.label * 2 + samples.image % 2
    order = np.argsort(half, kind="stable")
    groups, starts = np.unique(half[order], return_index=True)
    rows = dict(zip(groups.tolist(), np.split(order, starts[1:]), strict=False))
    for number, own in rows.items():
        other = rows.get(number ^ 1)
        if other is not None:
            fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            fitted.fit(samples.score[other], samples.quality[other])
            scores[own] = fitted.predict(samples.score[own])
    return scores


def _bins(score: Floats) -> Integers:
    """Return the bin of each score; scores below 0 or above 1 are in the first or last."""
    return np.searchsorted(EDGES[1:-1], score, side="left")


def _diagram(samples: Samples) -> dict[str, Any]:
    bins = _bins(samples.score)
    count = np.bincount(bins, minlength=NUM_BINS)
    return {
        "confidence": ratio(np.bincount(bins, samples.score, NUM_BINS), count),
        "quality": ratio(np.bincount(bins, samples.quality, NUM_BINS), count),
        "count": count,
    }
