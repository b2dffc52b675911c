"""The metrics of a report: name in the JSON, words on the page, unit, and which way is better."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

NULL = "–"
Unit = Literal["points", "share", "number"]


@dataclass(frozen=True)
class Metric:
    """One metric: `points` are percent as they are, a `share` is shown in percent, a `number` as it is."""

    name: str
    label: str
    unit: Unit
    better: Literal[1, 0, -1]
    """1 if more is better, -1 if less is, 0 if neither is."""
    text: str
    """The definition, one sentence."""

    def format(self, value: float | None) -> str:
        """Return a value as the page shows it, NULL for None and what is not finite."""
        if self.unit == "share":
            return percent(value)
        return number(value, 1 if self.unit == "points" else 3)

    def format_difference(self, value: float | None) -> str:
        """Return a difference with its sign, one digit more than a value in points has."""
        if value is None:
            return NULL
        if self.unit == "share":
            return number(100 * value, 1, signed=True)
        return number(value, 2 if self.unit == "points" else 3, signed=True)


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """Return a number with `digits` decimals and a true minus sign, NULL for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return NULL
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float | None) -> str:
    """Return a share in percent, one decimal."""
    return NULL if value is None or not math.isfinite(value) else f"{number(100 * value, 1)}\N{NO-BREAK SPACE}%"


def count(value: int) -> str:
    """Return a count with thousands in groups."""
    return f"{value:,}"


def counted(number_of: int, noun: str) -> str:
    """Return a count with its noun, which is plural for all but one."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count(number_of)} {noun if number_of == 1 else plural}"


_AP = "mean over classes and the IoU thresholds .5 to .95 of the area under the precision-recall curve (COCO)"
_MULTIPLES = (2, 3, 5, 10)

_ALL = [
    Metric("AP", "AP", "points", 1, f"Average precision: {_AP}."),
    Metric("AP50", "AP50", "points", 1, "AP at the IoU threshold .5 alone."),
    Metric("AP75", "AP75", "points", 1, "AP at the IoU threshold .75 alone."),
    Metric("APs", "AP small", "points", 1, "AP of objects below 32 x 32 pixels."),
    Metric("APm", "AP medium", "points", 1, "AP of objects from 32 x 32 to 96 x 96 pixels."),
    Metric("APl", "AP large", "points", 1, "AP of objects above 96 x 96 pixels."),
    Metric(
        "recall_best_regressed",
        "Best-regressed recall at N",
        "share",
        1,
        "Share of objects whose best-regressed box (highest IoU of the detections of its class) is among the N most "
        "confident detections of the image, N being its number of objects.",
    ),
    *(
        Metric(
            f"recall_best_regressed_{k}N",
            f"Best-regressed recall at {k}N",
            "share",
            1,
            f"The same among the {k}N most confident.",
        )
        for k in _MULTIPLES
    ),
    Metric(
        "recall_best_regressed_any_class",
        "Best-regressed recall at N, any class",
        "share",
        1,
        "The recall at N with detections of every class: a box counts once, with its best score.",
    ),
    Metric(
        "pearson", "Pearson", "number", 1, "Pearson's correlation of score and IoU over matched detections (IoU .5)."
    ),
    Metric("spearman", "Spearman", "number", 1, "Spearman's rank correlation of score and IoU over the same."),
    Metric(
        "oracle_AP",
        "AP with IoU as score",
        "points",
        1,
        "AP after each score is replaced by the IoU of its box with the best object of its class: a perfect ranking of "
        "the boxes, duplicates among them.",
    ),
    Metric(
        "oracle_gap",
        "Oracle gap",
        "points",
        0,
        "AP with IoU as score minus AP: what a true ranking would win; below 0 where it loses more by duplicates, "
        "which then score as high as the first box of their object.",
    ),
    Metric(
        "ceiling_AP",
        "AP with perfect scores",
        "points",
        1,
        "AP after the best box of each object, one each, is given its IoU as the score, and every other box 0.",
    ),
    Metric(
        "olrp",
        "oLRP",
        "share",
        -1,
        "Optimal localization recall precision: the lowest error over score thresholds that counts false positives, "
        "misses and the IoU that matched boxes lack; its threshold is the recommended one.",
    ),
    Metric("olrp_localization", "oLRP localization", "share", -1, "Mean 1 - IoU of the matched boxes at that point."),
    Metric("olrp_false_positives", "oLRP false positives", "share", -1, "Share of false detections at that point."),
    Metric("olrp_false_negatives", "oLRP misses", "share", -1, "Share of objects missed at that point."),
    Metric(
        "lace",
        "LaECE",
        "share",
        -1,
        "Localization-aware calibration error: mean distance of score and IoU in 25 bins of the score, over the "
        "detections at or above the recommended threshold.",
    ),
    Metric(
        "lace_recalibrated",
        "LaECE, recalibrated",
        "share",
        -1,
        "The same after isotonic regression of IoU on score, fitted on the other half of the images.",
    ),
    Metric(
        "oce",
        "OCE",
        "number",
        -1,
        "Object-level calibration error: the squared errors of the mean class scores of the boxes on an object, added "
        "over classes, mean over objects and the IoU thresholds .5 and .75; 1 where no box is on it.",
    ),
    Metric(
        "duplicates_50",
        "Duplicates at IoU .5",
        "number",
        -1,
        "Detections per object beyond its first, of those at or above the recommended threshold.",
    ),
    Metric("duplicates_70", "Duplicates at IoU .7", "number", -1, "The same for boxes that overlap it by .7."),
    Metric("error_cls", "Error: class", "points", -1, "AP50 lost by a wrong class on a good box (TIDE)."),
    Metric("error_loc", "Error: box", "points", -1, "AP50 lost by a box that overlaps its object by .1 to .5."),
    Metric("error_both", "Error: class and box", "points", -1, "AP50 lost by both at once."),
    Metric("error_dupe", "Error: duplicate", "points", -1, "AP50 lost by second boxes of an object."),
    Metric("error_bkg", "Error: background", "points", -1, "AP50 lost by detections where there is nothing."),
    Metric("error_miss", "Error: missed", "points", -1, "AP50 lost by objects without a detection."),
]
METRICS = {metric.name: metric for metric in _ALL}

AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RECALLS = ("recall_best_regressed", *(f"recall_best_regressed_{k}N" for k in _MULTIPLES))
ALIGNMENT = (
    *RECALLS,
    "recall_best_regressed_any_class",
    "pearson",
    "spearman",
    "oracle_AP",
    "oracle_gap",
    "ceiling_AP",
)
OLRP = ("olrp", "olrp_localization", "olrp_false_positives", "olrp_false_negatives")
CALIBRATION = ("lace", "lace_recalibrated", "oce")
DUPLICATES = ("duplicates_50", "duplicates_70")
ERRORS = ("error_cls", "error_loc", "error_both", "error_dupe", "error_bkg", "error_miss")
OF_CLASSES = (
    "AP",
    "AP50",
    "recall_best_regressed",
    "pearson",
    "oracle_gap",
    "olrp",
    "lace",
    "duplicates_50",
)
"""What the table of classes begins with."""


def metric_of(name: str) -> Metric:
    """Return the metric of a name; one that this version does not know is shown as a plain number."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "), "number", 1, "")


def in_order(names: Iterable[str]) -> list[str]:
    """Return names once each in the order of METRICS, unknown ones last."""
    given = dict.fromkeys(names)
    return [name for name in METRICS if name in given] + [name for name in given if name not in METRICS]
