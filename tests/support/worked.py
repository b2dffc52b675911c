"""Results written down row by row, and pycocotools' matching of them as rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from align_detr.analysis.results import Results
from align_detr.analysis.tables import Truth, make_objects, sort_detections

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
