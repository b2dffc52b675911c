"""The numbers of one detector: every metric overall, per class and per object size, with curves and worst cases."""

from typing import Any

from align_detr.analysis.average_precision import AveragePrecision
from align_detr.analysis.calibration import CalibrationError
from align_detr.analysis.correlation import EDGES, ScoreCorrelation
from align_detr.analysis.duplicates import Duplicates, list_duplicates
from align_detr.analysis.errors import ErrorTypes
from align_detr.analysis.localization_recall import LocalizationRecallPrecision
from align_detr.analysis.matching import AREAS
from align_detr.analysis.misaligned import list_misaligned
from align_detr.analysis.object_calibration import ObjectCalibrationError
from align_detr.analysis.precision import RECALLS
from align_detr.analysis.regressed import IOU_EDGES, MULTIPLES, BestRegressedRecall, iou_histograms
from align_detr.analysis.results import Metric, Results, Values
from align_detr.analysis.tables import Floats, Integers
from align_detr.analysis.unmatched import list_unmatched

SIZES = [area for area in AREAS if area]
"""Names of COCO's sizes of objects."""

METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "oracle_AP", "ceiling_AP", "oracle_gap"),
    *(f"recall_best_regressed{which}" for which in ("", "_2N", "_3N", "_5N", "_10N", "_any_class")),
    *("pearson", "spearman"),
    *("olrp", "olrp_localization", "olrp_false_positives", "olrp_false_negatives"),
    *("lace", "lace_recalibrated", "oce", "duplicates_50", "duplicates_70"),
    *("error_cls", "error_loc", "error_both", "error_dupe", "error_bkg", "error_miss"),
)
"""Names of all metrics."""

ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""Types of errors in the order of TIDE."""


class AllMetrics:
    """Every metric of one detector; it keeps no more of the results than its values need."""

    def __init__(self, results: Results, area: str = "", thresholds: Floats | None = None) -> None:
        """Prepare for objects of a range of areas, a key of AREAS.

        `thresholds` (K,): the scores that detections are shown from, by default the recommended ones.
        """
        matching = results.matching_of(area)
        self.precision = AveragePrecision(results, area)
        self.recall = BestRegressedRecall(results, matching)
        self.correlation = ScoreCorrelation(results, matching)
        self.localization = LocalizationRecallPrecision(results, matching)
        if thresholds is None:
            thresholds = self.localization.thresholds(results.each_once)
        self.thresholds = thresholds
        self.calibration = CalibrationError(results, thresholds, area)
        self.object_calibration = ObjectCalibrationError(results, thresholds, matching)
        self.duplicates = Duplicates(results, thresholds, matching)
        self.errors = ErrorTypes(results, matching)

    def __call__(self, copies: Integers) -> Values:
        """Return the values for a set that has `copies` (I,) of each image."""
        metrics: list[Metric] = [
            self.precision,
            self.recall,
            self.correlation,
            self.localization,
            self.calibration,
            self.object_calibration,
            self.duplicates,
            self.errors,
        ]
        values = [metric(copies) for metric in metrics]
        return Values(
            {name: value for each in values for name, value in each.overall.items()},
            {name: value for each in values for name, value in each.per_class.items()},
        )


def numbers_of(results: Results, metrics: AllMetrics) -> dict[str, Any]:
    """Return the part of the report that is of one detector; `metrics` are those of its results."""
    copies, thresholds = results.each_once, metrics.thresholds
    values = metrics(copies)
    return {
        "detections": len(results.detections),
        "overall": values.overall,
        "per_class": values.per_class,
        "per_size": {area: AllMetrics(results, area, thresholds)(copies).overall for area in SIZES},
        "thresholds": thresholds,
        "curves": {
            "recall_best_regressed": {"multiples": MULTIPLES, "values": metrics.recall.curve(copies)},
            "iou_histogram": {"edges": IOU_EDGES, **iou_histograms(results)},
            "score_iou": {"edges": EDGES, "density": metrics.correlation.density()},
            "reliability": metrics.calibration.reliability(),
            "precision_recall": {"recall": RECALLS, **metrics.precision.curves(copies)},
        },
        "errors": {word: values.overall[f"error_{word.lower()}"] for word in ERRORS},
        "unmatched": list_unmatched(results, thresholds),
        "misaligned": list_misaligned(results),
        "duplicates": list_duplicates(results, thresholds),
        "layers": None,
    }
