"""Results written down row by row, and pycocotools' matching of them as rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from align_detr.analysis.results import Results
from align_detr.analysis.tables import Truth, make_objects, sort_detections
from support.results import coco_entries

Row = tuple[Any, ...]


def write_results(
    objects: Sequence[Row], detections: Sequence[Row], *, images: int = 1, classes: int = 1, **options: Any
) -> Results:
    """Return results of objects (image, class, box) or (image, class, box, crowd) and detections (image, class, score,
    box).
    """
    image, label, box, crowd = zip(*((*row, False)[:4] for row in objects), strict=True) if objects else ([],) * 4
    boxes = np.array(box, dtype=np.float64).reshape(-1, 4)
    truth = Truth(
        image_ids=range(1, images + 1),
        file_names=[f"{number}.jpg" for number in range(1, images + 1)],
        category_ids=range(1, classes + 1),
        class_names=[f"class {k}" for k in range(classes)],
        objects=make_objects(image, label, boxes, boxes[:, 2] * boxes[:, 3], crowd),
    )
    of, found, score, where = zip(*detections, strict=True) if detections else ([],) * 4
    return Results(truth, sort_detections(of, found, score, np.array(where)), **options)


def once(results: Results) -> np.ndarray:
    """Return one copy of each image."""
    return np.ones(results.truth.num_images, dtype=np.int64)


def overlap(box: Sequence[float], other: Sequence[float], crowd: bool = False) -> float:
    """Return the intersection over union of two boxes, or over the area of the first where the other is a crowd."""
    (x, y, w, h), (left, top, wide, high) = box, other
    width, height = min(x + w, left + wide) - max(x, left), min(y + h, top + high) - max(y, top)
    both = max(width, 0) * max(height, 0)
    return float(both / (w * h if crowd else w * h + wide * high - both))


def corners(box: np.ndarray) -> np.ndarray:
    """Return boxes (n, 4) x, y, width, height as left, top, right, bottom."""
    return np.c_[box[:, :2], box[:, :2] + box[:, 2:]]


def coco_dictionaries(results: Results) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the contents of an annotation file, whose images have sizes, and of a results file."""
    truth, detections = coco_entries(results)
    for image in truth["images"]:
        image |= {"width": 1000, "height": 1000}
    return truth, detections


class CocoDetection(NamedTuple):
    """A detection as pycocotools matches it at IoU .5: `state` is "right", "wrong" or "left out"."""

    score: float
    state: str
    iou: float


def coco_detections(evaluation: COCOeval, label: int, area: int) -> tuple[list[CocoDetection], int]:
    """Return the detections of a class that take part, and the number of its objects that count."""
    params = evaluation.params
    rows, objects = [], 0
    for number in range(len(params.imgIds)):
        entry = evaluation.evalImgs[(label * len(params.areaRng) + area) * len(params.imgIds) + number]
        if entry is None:
            continue
        objects += int(np.sum(np.asarray(entry["gtIgnore"]) == 0))
        rows += list(_rows(evaluation, entry, params.imgIds[number], params.catIds[label]))
    return rows, objects


def _rows(evaluation: COCOeval, entry: dict[str, Any], image: int, category: int) -> Iterator[CocoDetection]:
    columns = {annotation["id"]: number for number, annotation in enumerate(evaluation._gts[image, category])}
    for index, score in enumerate(entry["dtScores"]):
        match = int(entry["dtMatches"][0, index])
        left_out = bool(entry["dtIgnore"][0, index])
        iou = float(evaluation.ious[image, category][index, columns[match]]) if match else 0.0
        yield CocoDetection(score, "left out" if left_out else "right" if match else "wrong", iou)
