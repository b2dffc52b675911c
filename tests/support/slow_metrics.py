"""Metrics of results by plain loops over images, objects and detections, as their definitions read."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from align_detr.analysis.matching import AREAS
from align_detr.analysis.results import Results
from align_detr.analysis.tables import sort_detections
from support.results import coco_evaluation


class Found(NamedTuple):
    """One detection."""

    entry: int
    label: int
    score: float
    box: tuple[float, ...]


class Wanted(NamedTuple):
    """One object that is no crowd."""

    index: int
    label: int
    area: float
    box: tuple[float, ...]


def images_of(results: Results) -> Iterator[tuple[list[Wanted], list[Found]]]:
    """Yield objects and detections, in the order of entries, of each image."""
    objects, found = results.truth.objects, results.detections
    for image in range(results.truth.num_images):
        wanted = [
            Wanted(k, int(objects.label[k]), float(objects.area[k]), tuple(objects.box[k].tolist()))
            for k in range(len(objects))
            if objects.image[k] == image and not objects.crowd[k]
        ]
        rows = [
            Found(int(found.entry[k]), int(found.label[k]), float(found.score[k]), tuple(found.box[k].tolist()))
            for k in range(len(found))
            if found.image[k] == image
        ]
        yield wanted, sorted(rows, key=lambda row: row.entry)


def iou_of(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of boxes x, y, width, height."""
    x, y, w, h = one
    left, top, wide, high = other
    width, height = min(x + w, left + wide) - max(x, left), min(y + h, top + high) - max(y, top)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (w * h + wide * high - width * height)


def counts(wanted: Wanted, area: str, label: int | None) -> bool:
    """Return whether an object is of a range of areas and, if any is given, of a class."""
    low, high = AREAS[area]
    return low <= wanted.area <= high and label in (None, wanted.label)


def recall_best_regressed(results: Results, multiple: int, area: str = "", label: int | None = None) -> float:
    """Return the share of objects whose best-regressed sample is among the most confident."""
    recalled, objects = 0, 0
    for wanted, found in images_of(results):
        confident = sorted(found, key=lambda row: -row.score)[: multiple * len(wanted)]
        for one in (each for each in wanted if counts(each, area, label)):
            objects += 1
            samples = [row for row in found if row.label == one.label and iou_of(row.box, one.box) > 0]
            if samples:
                recalled += max(samples, key=lambda row: (iou_of(row.box, one.box), row.score)) in confident
    return recalled / objects if objects else float("nan")


def recall_of_any_class(results: Results, area: str = "", label: int | None = None) -> float:
    """Return the same of boxes, with the best score of each, and k = 1."""
    recalled, objects = 0, 0
    for wanted, found in images_of(results):
        boxes: dict[tuple[float, ...], Found] = {}
        for row in sorted(found, key=lambda row: -row.score):
            boxes.setdefault(row.box, row)
        confident = list(boxes)[: len(wanted)]
        for one in (each for each in wanted if counts(each, area, label)):
            objects += 1
            samples = [box for box in boxes if iou_of(box, one.box) > 0]
            recalled += bool(samples) and max(samples, key=lambda box: iou_of(box, one.box)) in confident
    return recalled / objects if objects else float("nan")


def sampled_ious(results: Results) -> tuple[list[float], list[float]]:
    """Return the IoUs of best-regressed and of most confident samples."""
    regressed, confident = [], []
    for wanted, found in images_of(results):
        for one in wanted:
            best = max((iou_of(row.box, one.box) for row in found if row.label == one.label), default=0)
            regressed += [best] if best > 0 else []
        for row in sorted(found, key=lambda row: -row.score)[: len(wanted)]:
            confident.append(max((iou_of(row.box, one.box) for one in wanted if one.label == row.label), default=0))
    return regressed, confident


class Match(NamedTuple):
    """A true positive at IoU .5."""

    area: str
    label: int
    score: float
    iou: float


def matched(results: Results) -> list[Match]:
    """Return the true positives at IoU .5 for each range of areas, which are pycocotools'."""
    evaluation = coco_evaluation(results)
    areas = {tuple(bounds): area for area, bounds in AREAS.items()}
    found = []
    for each in filter(None, evaluation.evalImgs):
        area = areas[tuple(each["aRng"])]
        for number, of, ignored in zip(each["dtIds"], each["dtMatches"][0], each["dtIgnore"][0], strict=True):
            if of and not ignored:
                detection, wanted = evaluation.cocoDt.anns[number], evaluation.cocoGt.anns[of]
                iou = iou_of(detection["bbox"], wanted["bbox"])
                found.append(Match(area, each["category_id"] - 1, detection["score"], iou))
    return found


def with_true_ious(results: Results) -> Results:
    """Return the results with the IoU with the best object of its class as the score of each detection."""
    rows = []
    for image, (wanted, found) in enumerate(images_of(results)):
        for row in found:
            iou = max((iou_of(row.box, one.box) for one in wanted if one.label == row.label), default=0.0)
            rows.append((row.entry, image, row.label, iou, row.box))
    columns = [list(column) for column in zip(*sorted(rows), strict=True)] or [[]] * 5
    return Results(results.truth, sort_detections(*columns[1:4], np.array(columns[4])), results.max_detections)


def with_perfect_scores(results: Results) -> Results:
    """Return the detections that are the best of an object, one each by falling IoU, with their IoU as the score."""
    rows = []
    for image, (wanted, found) in enumerate(images_of(results)):
        best = {
            row.entry: max((iou_of(row.box, one.box) for one in wanted if one.label == row.label), default=0.0)
            for row in found
        }
        free = list(wanted)
        for row in sorted(found, key=lambda row: (-best[row.entry], row.entry)):
            near = [(iou_of(row.box, one.box), k) for k, one in enumerate(free) if one.label == row.label]
            iou, k = max(near, default=(0.0, 0))
            if iou >= 0.5:
                free.pop(k)
                rows.append((row.entry, image, row.label, iou, row.box))
    columns = [list(column) for column in zip(*sorted(rows), strict=True)] or [[]] * 5
    return Results(results.truth, sort_detections(*columns[1:4], np.array(columns[4])), results.max_detections)
