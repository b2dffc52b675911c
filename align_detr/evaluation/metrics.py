"""COCO's metrics of boxes. The one place that knows the library that computes them."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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
    annotations: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
    max_detections: int,
) -> BoxMetrics:
    """Compute COCO's metrics with pycocotools, the official implementation.

    Images and classes are numbered from 1. `annotations`: id (from 1), image_id, category_id, bbox (x, y, width,
    height), area, iscrowd. `detections`: image_id, category_id, bbox, score. The `max_detections` best detections of
    a class count per image.
    """
    boxes = [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = (_index(num_images, num_classes, entries) for entries in (annotations, boxes))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [*(count for count in _FEW if count < max_detections), max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return _read(evaluation)


def metric_names(max_detections: int) -> list[str]:
    """Return the names of `BoxMetrics.summary`."""
    counts = [*(count for count in _FEW if count < max_detections), max_detections]
    areas = [letter for letter in _AREAS if letter]
    return ["AP", "AP50", "AP75", *(f"AP{x}" for x in areas), *(f"AR{x}" for x in [*counts, *areas])]


def _index(num_images: int, num_classes: int, annotations: Sequence[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(1, num_images + 1)],
        "categories": [{"id": number} for number in range(1, num_classes + 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _read(evaluation: COCOeval) -> BoxMetrics:
    """Return the numbers as COCO's summary takes them from precision and recall, for any number of detections.

    precision: (IoU thresholds, recalls, classes, areas, numbers of detections); recall: the same without recalls.
    """
    precision, recall, params = evaluation.eval["precision"], evaluation.eval["recall"], evaluation.params
    area_of = {letter: params.areaRngLbl.index(name) for letter, name in _AREAS.items()}
    at = {f"{iou:.2f}": index for index, iou in enumerate(params.iouThrs)}
    summary = {
        "AP": _percent(precision[:, :, :, area_of[""], -1]),
        "AP50": _percent(precision[at["0.50"], :, :, area_of[""], -1]),
        "AP75": _percent(precision[at["0.75"], :, :, area_of[""], -1]),
        **{f"AP{letter}": _percent(precision[:, :, :, area_of[letter], -1]) for letter in "sml"},
        **{f"AR{count}": _percent(recall[:, :, area_of[""], k]) for k, count in enumerate(params.maxDets)},
        **{f"AR{letter}": _percent(recall[:, :, area_of[letter], -1]) for letter in "sml"},
    }
    return BoxMetrics(summary, [_percent(precision[:, :, k, area_of[""], -1]) for k in range(precision.shape[2])])


def _percent(values: NDArray[np.float64]) -> float:
    """Return 100 times the mean of what COCO does not mark as absent (-1), or NaN if that is nothing."""
    present = values[values > -1]
    return float(np.mean(present) * 100) if len(present) else float("nan")
