"""The tables of the page as rows of cells: what is shown, and the number behind it for sorting."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from align_detr.analysis.bootstrap import FEW_IMAGES
from align_detr.report.metrics import NULL, OF_CLASSES, count, in_order, metric_of, number, percent

Report = Mapping[str, Any]
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the value that sorting compares, and a remark behind the text."""

    text: str
    value: float | str | None = None
    note: str = ""
    kind: str = ""
    """A class of the style sheet: better, worse, beyond (noise, and neither of these), noise."""


@dataclass(frozen=True)
class Table:
    """A table whose first column heads its rows; `groups` is a row above the heads, of texts and columns spanned."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = ()
    sortable: bool = False


def metric_table(report: Report, names: Sequence[str]) -> Table | None:
    """Return metrics as rows, detectors and differences as columns; None if no detector has one of them."""
    detectors, differences = report["detectors"], report.get("differences") or ()
    rows = []
    for name in in_order(name for name in names if any(name in each["overall"] for each in detectors)):
        metric = metric_of(name)
        cells = [_cell(name, each["overall"].get(name)) for each in detectors]
        cells += [_difference(name, each["metrics"].get(name), each["images"]) for each in differences]
        rows.append((metric.label, cells))
    heads = [each["name"] for each in detectors]
    heads += [f"{each['of']} \N{MINUS SIGN} {each['over']}" for each in differences]
    intervals = "with their 95 % intervals, " if any(each["samples"] for each in differences) else ""
    caption = f"Differences {intervals}of shares in percentage points." if differences else ""
    return Table(caption, heads, rows) if rows else None


def class_table(report: Report, names: Sequence[str], caption: str, *, thresholds: bool) -> Table:
    """Return classes as rows and, per metric, one column per detector; it sorts."""
    detectors, classes = report["detectors"], report["ground_truth"]["classes"]
    names = [name for name in names if any(name in each["per_class"] for each in detectors)]
    groups = [(metric_of(name).label, _class_columns(detectors, name, len(classes))) for name in names]
    if thresholds and any(each.get("thresholds") for each in detectors):
        listed = [each.get("thresholds") or [None] * len(classes) for each in detectors]
        of_detectors = [[Cell(number(value, 3), value) for value in values] for values in listed]
        groups.insert(1, ("Recommended threshold", of_detectors))
    columns = [column for _, of_detectors in groups for column in of_detectors]
    rows = [(name, [column[k] for column in columns]) for k, name in enumerate(classes)]
    if len(detectors) == 1:
        return Table(caption, [label for label, _ in groups], rows, sortable=True)
    heads = [each["name"] for each in detectors] * len(groups)
    return Table(caption, heads, rows, [(label, len(detectors)) for label, _ in groups], sortable=True)


def _class_columns(detectors: Sequence[Mapping[str, Any]], name: str, length: int) -> list[list[Cell]]:
    """Return a column of cells per detector."""
    listed = [each["per_class"].get(name) or [None] * length for each in detectors]
    return [[_cell(name, value) for value in values] for values in listed]


def class_tables(report: Report) -> tuple[Table, Table | None]:
    """Return the table of classes with its main metrics, and the one with all others, if there are others."""
    main = class_table(report, OF_CLASSES, "Metrics per class.", thresholds=True)
    others = in_order(name for each in report["detectors"] for name in each["per_class"] if name not in OF_CLASSES)
    if not others:
        return main, None
    return main, class_table(report, others, "All other metrics per class.", thresholds=False)


def size_table(report: Report) -> Table | None:
    """Return metrics as rows and, per size of objects, one column per detector."""
    detectors = [each for each in report["detectors"] if each.get("per_size")]
    if not detectors:
        return None
    names = in_order(name for each in detectors for size in SIZES for name in each["per_size"].get(size) or ())
    rows = [
        (
            metric_of(name).label,
            [_cell(name, (each["per_size"].get(size) or {}).get(name)) for size in SIZES for each in detectors],
        )
        for name in names
    ]
    if len(detectors) == 1:
        return Table("Metrics per object size.", SIZES, rows)
    heads = [each["name"] for each in detectors] * len(SIZES)
    return Table("Metrics per object size.", heads, rows, [(size, len(detectors)) for size in SIZES])


def layer_tables(report: Report, names: Sequence[str] | None) -> list[Table]:
    """Return metrics (None: all) as rows and decoder layers as columns, one table per detector that has layers."""
    tables = []
    for detector in report["detectors"]:
        layers = detector.get("layers") or ()
        known = in_order(name for layer in layers for name in layer if names is None or name in names)
        rows = [(metric_of(name).label, [_cell(name, layer.get(name)) for layer in layers]) for name in known]
        if rows:
            heads = [f"layer {k + 1}" for k in range(len(layers))]
            tables.append(Table(f"{detector['name']} by decoder layer.", heads, rows))
    return tables


def training_tables(report: Report) -> list[Table]:
    """Return the evaluations of each training."""
    return [
        Table(
            run["name"],
            ["AP", "AP50"],
            [
                (f"iteration {count(iteration)}", [_cell("AP", ap), _cell("AP50", ap50)])
                for iteration, ap, ap50 in zip(run["iterations"], run["AP"], run["AP50"], strict=True)
            ],
        )
        for run in report.get("training") or ()
    ]


def curve_tables(report: Report) -> dict[str, list[Table]]:
    """Return the numbers of the figures, name of the curve -> one table per detector."""
    tables: dict[str, list[Table]] = {name: [] for name in _CURVES}
    for detector in report["detectors"]:
        for name, rows_of in _CURVES.items():
            curve = detector["curves"].get(name)
            if curve:
                heads, rows = rows_of(curve)
                tables[name].append(Table(detector["name"], heads, rows))
    return tables


Rows = list[tuple[str, Sequence[Cell]]]


def _recall_rows(curve: Mapping[str, Any]) -> tuple[list[str], Rows]:
    pairs = zip(curve["multiples"], curve["values"], strict=True)
    return ["recall"], [(f"{'' if multiple == 1 else multiple}N", [Cell(percent(value))]) for multiple, value in pairs]


def _histogram_rows(curve: Mapping[str, Any]) -> tuple[list[str], Rows]:
    columns = [[Cell(percent(value)) for value in curve[name]] for name in ("best_regressed", "most_confident")]
    return ["best-regressed", "most confident"], _bins(curve["edges"], columns)


def _reliability_rows(curve: Mapping[str, Any]) -> tuple[list[str], Rows]:
    heads = ["detections", "mean score", "mean IoU"]
    columns = [_counts(curve), *_means(curve)]
    if curve.get("recalibrated"):
        heads += ["recalibrated: detections", "mean score", "mean IoU"]
        columns += [_counts(curve["recalibrated"]), *_means(curve["recalibrated"])]
    return heads, _bins(curve["edges"], columns)


def _precision_rows(curve: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Every tenth point: the curves have 101."""
    rows: Rows = [
        (number(recall, 2), [Cell(number(curve[name][k], 3)) for name in ("AP50", "AP75")])
        for k, recall in enumerate(curve["recall"])
        if k % 10 == 0
    ]
    return ["precision at IoU .5", "at .75"], rows


_CURVES: dict[str, Callable[[Mapping[str, Any]], tuple[list[str], Rows]]] = {
    "recall_best_regressed": _recall_rows,
    "iou_histogram": _histogram_rows,
    "reliability": _reliability_rows,
    "precision_recall": _precision_rows,
}


def _counts(curve: Mapping[str, Any]) -> list[Cell]:
    return [Cell(count(value)) for value in curve["count"]]


def _means(curve: Mapping[str, Any]) -> list[list[Cell]]:
    return [[Cell(number(value, 3)) for value in curve[name]] for name in ("confidence", "quality")]


def _bins(edges: Sequence[float], columns: Sequence[Sequence[Cell]]) -> Rows:
    """Return one row per bin, named by its edges."""
    names = [f"{number(low, 2)} to {number(high, 2)}" for low, high in pairwise(edges)]
    return [(name, [column[k] for column in columns]) for k, name in enumerate(names)]


def _cell(name: str, value: float | None) -> Cell:
    return Cell(metric_of(name).format(value), value)


def _difference(name: str, entry: Mapping[str, float | None] | None, images: int) -> Cell:
    """Return a difference with its interval, and whether that leaves 0 out: better, worse or beyond noise; or noise.

    Of few images nothing is said.
    """
    if not entry or entry.get("difference") is None:
        return Cell(NULL)
    metric = metric_of(name)
    difference, low, high = entry["difference"], entry.get("low"), entry.get("high")
    text = metric.format_difference(difference)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Cell(text, difference)
    interval = f"({metric.format_difference(low)} to {metric.format_difference(high)})"
    if images < FEW_IMAGES:
        return Cell(f"{text} {interval}", difference)
    if low == high == 0:
        return Cell(f"{text} {interval}", difference)
    if low <= 0 <= high:
        return Cell(f"{text} {interval}", difference, "noise", "noise")
    if not metric.better:
        return Cell(f"{text} {interval}", difference, kind="beyond")
    kind = "better" if (low > 0) == (metric.better > 0) else "worse"
    return Cell(f"{text} {interval}", difference, kind, kind)
