"""The numbers of one detector: every metric overall, per class and per object size, with curves and worst cases."""

from typing import Any

import numpy as np

from align_detr.analysis.average_precision import AveragePrecision
from align_detr.analysis.correlation import EDGES, ScoreCorrelation
from align_detr.analysis.matching import AREAS
from align_detr.analysis.misaligned import list_misaligned
from align_detr.analysis.precision import RECALLS
from align_detr.analysis.regressed import IOU_EDGES, MULTIPLES, BestRegressedRecall, iou_histograms
from align_detr.analysis.results import Metric, Results, Values

SIZES = [area for area in AREAS if area]
"""Names of COCO's sizes of objects."""


class AllMetrics:
    """Every metric of one detector; it keeps no more of the results than its values need."""

    def __init__(self, results: Results, area: str = "") -> None:
        """Prepare for objects of a range of areas, a key of AREAS."""
        matching = results.matching_of(area)
        self.precision = AveragePrecision(results, area)
        self.recall = BestRegressedRecall(results, matching)
        self.correlation = ScoreCorrelation(results, matching)

    def __call__(self, copies: np.ndarray) -> Values:
        """Return the values for a set that has `copies` (I,) of each image."""
        metrics: list[Metric] = [self.precision, self.recall, self.correlation]
        values = [metric(copies) for metric in metrics]
        return Values(
            {name: value for each in values for name, value in each.overall.items()},
            {name: value for each in values for name, value in each.per_class.items()},
        )


def numbers_of(results: Results, metrics: AllMetrics) -> dict[str, Any]:
    """Return the part of the report that is of one detector; `metrics` are those of its results."""
    copies = np.ones(results.truth.num_images, dtype=np.int64)
    values = metrics(copies)
    return {
        "detections": len(results.detections),
        "overall": values.overall,
        "per_class": values.per_class,
        "per_size": {area: AllMetrics(results, area)(copies).overall for area in SIZES},
        "curves": {
            "recall_best_regressed": {"multiples": MULTIPLES, "values": metrics.recall.curve(copies)},
            "iou_histogram": {"edges": IOU_EDGES, **iou_histograms(results)},
            "score_iou": {"edges": EDGES, "density": metrics.correlation.density()},
            "precision_recall": {"recall": RECALLS, **metrics.precision.curves(copies)},
        },
        "misaligned": list_misaligned(results),
        "layers": None,
    }
