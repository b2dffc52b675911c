"""Random ground truth and detections in columns, and the same as pycocotools has them."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from align_detr.analysis.results import Results
from align_detr.analysis.tables import Truth, make_objects, sort_detections

SIZES = [
    dict(images=1, classes=1, objects=3, detections=10),
    dict(images=4, classes=2, objects=30, detections=100),
    dict(images=8, classes=3, objects=60, detections=400),
    dict(images=3, classes=1, objects=60, detections=300),
    dict(images=5, classes=4, objects=0, detections=20),
    dict(images=5, classes=2, objects=20, detections=0),
]
"""Arguments of `draw_results`."""

Box = tuple[float, float, float, float]


def make_results(
    *,
    objects: Sequence[tuple[int, int, Box] | tuple[int, int, Box, bool]],
    detections: Sequence[tuple[int, int, float, Box]],
    images: int = 1,
    classes: int = 2,
) -> Results:
    """Return results of objects (image, class, box, and whether a crowd) and detections (image, class, score, box).

    Boxes are x, y, width, height. Classes are called "a", "b" and so on.
    """
    image, label, box = ([each[k] for each in objects] for k in range(3))
    area = [each[2][2] * each[2][3] for each in objects]
    truth = Truth(
        image_ids=range(1, images + 1),
        file_names=[f"{number}.jpg" for number in range(1, images + 1)],
        category_ids=range(1, classes + 1),
        class_names=list("abcdef"[:classes]),
        objects=make_objects(image, label, box, area, [len(each) > 3 for each in objects]),
    )
    found = [[each[k] for each in detections] for k in range(4)]
    return Results(truth, sort_detections(*found))


def draw_copies(seed: int, results: Results) -> np.ndarray:
    """Return how often a bootstrap sample draws each image (I,)."""
    number = results.truth.num_images
    return np.random.default_rng(seed).multinomial(number, [1 / number] * number)


def draw_results(
    seed: int, *, images: int, classes: int, objects: int, detections: int, tied: bool = False, **options: Any
) -> Results:
    """Return results of which four in five detections lie near an object; `tied`: scores repeat."""
    draw = np.random.default_rng(seed)
    image, label = draw.integers(images, size=objects), draw.integers(classes, size=objects)
    box = np.c_[draw.uniform(0, 200, (objects, 2)), draw.uniform(2, 160, (objects, 2))].round(1)
    area, crowd = box[:, 2] * box[:, 3], draw.random(objects) < 0.1
    truth = Truth(
        image_ids=range(1, images + 1),
        file_names=[""] * images,
        category_ids=range(1, classes + 1),
        class_names=[f"class {k}" for k in range(classes)],
        objects=make_objects(image, label, box, area, crowd),
    )
    rows = [_detection(draw, truth, int(draw.integers(images))) for _ in range(detections)]
    scores = draw.random(detections)
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    found_image, found_label, found_box = (np.array(column) for column in columns)
    scores = scores.round(1) if tied else scores
    return Results(truth, sort_detections(found_image, found_label, scores, found_box), **options)


def _detection(draw: np.random.Generator, truth: Truth, image: int) -> tuple[int, int, np.ndarray]:
    label = int(draw.integers(truth.num_classes))
    near = np.flatnonzero(truth.objects.image == image)
    if not len(near) or draw.random() < 0.2:
        return image, label, np.r_[draw.uniform(0, 200, 2), draw.uniform(2, 160, 2)]
    one = draw.choice(near)
    box = truth.objects.box[one]
    label = int(truth.objects.label[one]) if draw.random() < 0.9 else label
    return image, label, box + draw.normal(0, 0.08 * box[2:].mean(), 4)


def with_copies(results: Results, copies: Sequence[int]) -> Results:
    """Return results of a set that holds each image as often as `copies` says."""
    truth, found = results.truth, results.detections
    drawn = np.repeat(np.arange(truth.num_images), copies)
    objects = [np.flatnonzero(truth.objects.image == image) for image in drawn]
    rows = [np.flatnonzero(found.image == image) for image in drawn]
    rows = [each[np.argsort(found.entry[each])] for each in rows]
    of, row = np.concatenate([[], *objects]).astype(int), np.concatenate([[], *rows]).astype(int)
    image_of = np.repeat(np.arange(len(drawn)), [len(each) for each in objects])
    image = np.repeat(np.arange(len(drawn)), [len(each) for each in rows])
    columns = truth.objects
    again = Truth(
        range(1, len(drawn) + 1),
        [""] * len(drawn),
        truth.category_ids,
        truth.class_names,
        make_objects(image_of, columns.label[of], columns.box[of], columns.area[of], columns.crowd[of]),
    )
    detections = sort_detections(image, found.label[row], found.score[row], found.box[row])
    return Results(again, detections, results.max_detections)


def coco_entries(results: Results) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the contents of an annotation file, ids from 1, and of a results file."""
    truth, found = results.truth, results.detections
    objects = truth.objects
    annotations = [
        {
            "id": k + 1,
            "image_id": int(objects.image[k]) + 1,
            "category_id": int(objects.label[k]) + 1,
            "bbox": objects.box[k].tolist(),
            "area": float(objects.area[k]),
            "iscrowd": int(objects.crowd[k]),
        }
        for k in range(len(objects))
    ]
    detections = [
        {
            "image_id": int(found.image[k]) + 1,
            "category_id": int(found.label[k]) + 1,
            "bbox": found.box[k].tolist(),
            "score": float(found.score[k]),
        }
        for k in np.argsort(found.entry)
    ]
    images = [{"id": number + 1, "file_name": truth.file_names[number]} for number in range(truth.num_images)]
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(truth.class_names)]
    return {"images": images, "categories": categories, "annotations": annotations}, detections


def coco_evaluation(results: Results) -> COCOeval:
    """Return pycocotools' evaluation of the results, accumulated."""
    truth, detections = coco_entries(results)
    found = [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truth), _coco({**truth, "annotations": found}), "bbox")
        evaluation.params.maxDets = [1, 2, results.max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco
