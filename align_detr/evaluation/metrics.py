"""COCO's metrics of boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.evaluation.libraries import Accumulated, BoxColumns, BoxTask, find_library

_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}
_FEW = (1, 10)
"""COCO's other two numbers of detections per image, of which it states the recall."""


@dataclass(frozen=True)
class BoxMetrics:
    """COCO's numbers in percent; NaN where no object counts.

    `summary`: AP, AP50, AP75, APs, APm, APl, and the recall AR1, AR10, AR<max_detections>, ARs, ARm, ARl.
    `per_class`: AP of each class.
    """

    summary: dict[str, float]
    per_class: list[float]


def box_metrics(
    *,
    num_images: int,
    num_classes: int,
    annotations: Sequence[Mapping[str, Any]],
    detections: BoxColumns,
    max_detections: int,
    library: str = "auto",
) -> BoxMetrics:
    """Compute COCO's metrics with the library of a name (`find_library`).

    Images and classes are numbered from 1. `annotations`: id (from 1), image_id, category_id, bbox (x, y, width,
    height), area, iscrowd. The `max_detections` best detections of a class count per image.
    """
    counts = _counts(max_detections)
    return _read(find_library(library)(BoxTask(num_images, num_classes, annotations, detections, counts)))


def metric_names(max_detections: int) -> list[str]:
    """Return the names of `BoxMetrics.summary`."""
    areas = [letter for letter in _AREAS if letter]
    return ["AP", "AP50", "AP75", *(f"AP{x}" for x in areas), *(f"AR{x}" for x in [*_counts(max_detections), *areas])]


def _counts(max_detections: int) -> list[int]:
    return [*(count for count in _FEW if count < max_detections), max_detections]


def _read(found: Accumulated) -> BoxMetrics:
    """Return the numbers as COCO's summary takes them from precision and recall, for any number of detections."""
    precision, recall = found.precision, found.recall
    area_of = {letter: found.areas.index(name) for letter, name in _AREAS.items()}
    at = {f"{iou:.2f}": index for index, iou in enumerate(found.thresholds)}
    summary = {
        "AP": _percent(precision[:, :, :, area_of[""], -1]),
        "AP50": _percent(precision[at["0.50"], :, :, area_of[""], -1]),
        "AP75": _percent(precision[at["0.75"], :, :, area_of[""], -1]),
        **{f"AP{letter}": _percent(precision[:, :, :, area_of[letter], -1]) for letter in "sml"},
        **{f"AR{count}": _percent(recall[:, :, area_of[""], k]) for k, count in enumerate(found.counts)},
        **{f"AR{letter}": _percent(recall[:, :, area_of[letter], -1]) for letter in "sml"},
    }
    return BoxMetrics(summary, [_percent(precision[:, :, k, area_of[""], -1]) for k in range(precision.shape[2])])


def _percent(values: NDArray[np.float64]) -> float:
    """Return 100 times the mean of what COCO does not mark as absent (-1), or NaN if that is nothing."""
    present = values[values > -1]
    return float(np.mean(present) * 100) if len(present) else float("nan")
