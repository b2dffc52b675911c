"""Checks of loaded records, whatever function they come from, and the log lines on what they hold."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.data.check_boxes import TOLERANCE
from align_detr.data.lazy_records import JoinedRecords, Records, count_objects
from align_detr.data.values import read_boxes
from align_detr.errors import DatasetError
from align_detr.paths import SMALL_DATA_REMEDY, is_small_data

logger = logging.getLogger(__name__)

_LISTED_CLASSES = 100


@dataclass(frozen=True)
class _Objects:
    """The annotations of all records: `crowd` (N,), `boxes` (N, 4) and `sides` (N, 2), in the boxes' own mode.

    `counts`: annotations of each record; `categories`: (N,), checked by `_check_categories`; `sizes`: width and height
    of the images, infinite where a record has none.
    """

    records: Sequence[dict[str, Any]]
    counts: np.ndarray
    sizes: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    sides: np.ndarray
    categories: Sequence[Any] | np.ndarray

    def describe(self, name: str, index: int) -> str:
        """Return the beginning of an error about annotation `index`."""
        ends = np.cumsum(self.counts)
        return _describe(name, self.records[int(np.searchsorted(ends, index, side="right"))])


def check_dataset(name: str, records: Sequence[dict[str, Any]]) -> None:
    """Check a loaded data set's annotations, and log what they hold and what training leaves out.

    Raise DatasetError for a data set without images, a missing image folder, an annotation without a box, with a box
    of text or that is not finite or with an iscrowd other than 0 and 1, and a category outside the data set's classes.
    """
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if not len(records):
        raise DatasetError(f"The data set '{name}' has no images: check the \"images\" of {json_file or 'its source'}.")
    if image_root and not os.path.isdir(image_root):
        raise DatasetError(
            f"The image folder {image_root} of the data set '{name}' does not exist: {folder_remedy(image_root)}."
        )
    objects = _read_objects(name, records)
    classes = metadata.get("thing_classes")
    used = _check_categories(name, objects, None if classes is None else len(classes))
    _report(name, objects)
    if classes is not None:
        _report_classes(name, classes, np.bincount(used[objects.crowd == 0], minlength=len(classes)))


def take_part(records: Sequence[dict[str, Any]]) -> bool:
    """Return whether training uses a box of checked records: one of no crowd region, with width and height."""
    if isinstance(records, JoinedRecords):
        return any(map(take_part, records.parts))
    if isinstance(records, Records):
        arrays = records.columns.arrays
        return bool((~arrays["crowd"] & (arrays["bbox"][:, 2:] > 0).all(axis=1)).any())
    return any(_takes_part(a) for record in records for a in record.get("annotations", ()))


def _takes_part(annotation: dict[str, Any]) -> bool:
    x, y, right, bottom = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYXY_ABS:
        right, bottom = right - x, bottom - y
    return not annotation.get("iscrowd", 0) and right > 0 and bottom > 0


def folder_remedy(path: str | os.PathLike) -> str:
    """Return the variable to set for a file that is not found, by the folder it should be in."""
    if is_small_data(path):
        return SMALL_DATA_REMEDY
    return "set DETECTRON2_DATASETS to the folder of the data sets, or register the data set with its right paths"


def _read_objects(name: str, records: Sequence[dict[str, Any]]) -> _Objects:
    """Return the boxes of all records; raise DatasetError for one that cannot be used."""
    if isinstance(records, Records):
        return _objects_of_columns(records)
    annotations = [annotation for record in records for annotation in record.get("annotations", ())]
    boxes, malformed, texts = read_boxes([annotation.get("bbox") for annotation in annotations])
    is_xyxy = np.array([a.get("bbox_mode") == BoxMode.XYXY_ABS for a in annotations], dtype=bool)
    sides = boxes[:, 2:] - boxes[:, :2] * is_xyxy[:, None]
    iscrowd = [annotation.get("iscrowd", 0) for annotation in annotations]
    crowd = np.array([value in (0, 1) and bool(value) for value in iscrowd], dtype=np.int64)
    counts = np.array([len(record.get("annotations", ())) for record in records])
    sizes = np.array([(r.get("width", np.inf), r.get("height", np.inf)) for r in records], dtype=np.float64)
    categories = [annotation.get("category_id") for annotation in annotations]
    objects = _Objects(records, counts, sizes, crowd, boxes, sides, categories)
    for row in np.flatnonzero(malformed)[:1]:
        raise DatasetError(f"{objects.describe(name, row)} has no box of four numbers: complete or remove it.")
    for row in texts[:1]:
        box = annotations[row]["bbox"]
        raise DatasetError(f"{objects.describe(name, row)} has the box {box} of text: write its numbers as numbers.")
    for row in np.flatnonzero(~np.isfinite(boxes).all(axis=1) & (crowd == 0))[:1]:
        box = annotations[row]["bbox"]
        raise DatasetError(
            f"{objects.describe(name, row)} has the box {box}, which is not finite: correct or remove it."
        )
    for row, value in enumerate(iscrowd):
        if value not in (0, 1):
            raise DatasetError(f"{objects.describe(name, row)} has iscrowd {value!r}: write 0 or 1.")
    return objects


def _objects_of_columns(records: Records) -> _Objects:
    """Return the boxes of records whose annotations have been checked with their file."""
    arrays = records.columns.arrays
    counts, crowd, boxes = np.diff(arrays["objects_end"]), arrays["crowd"].astype(np.int64), arrays["bbox"]
    return _Objects(records, counts, arrays["size"].astype(np.float64), crowd, boxes, boxes[:, 2:], arrays["category"])


def _check_categories(name: str, objects: _Objects, num_classes: int | None) -> np.ndarray:
    """Return the classes of all annotations; raise DatasetError for one that is not among the data set's classes."""
    given = objects.categories
    if isinstance(given, np.ndarray):
        return given
    for row, category in enumerate(given):
        if not isinstance(category, int | np.integer):
            raise DatasetError(
                f"{objects.describe(name, row)} has the class {category!r}, which is no whole number: write the index "
                "of its class."
            )
        if category < 0:
            raise DatasetError(
                f"{objects.describe(name, row)} has class {category}, but classes count from 0: correct the annotation."
            )
        if num_classes is not None and category >= num_classes:
            raise DatasetError(
                f"{objects.describe(name, row)} has class {category}, but the data set has {num_classes} classes, "
                "counted from 0: correct the annotation."
            )
    return np.array(given, dtype=np.int64)


def _describe(name: str, record: dict) -> str:
    return f"An annotation of image {record.get('image_id')} ({record['file_name']}) in the data set '{name}'"


def _report(name: str, objects: _Objects) -> None:
    """Log one line: images, boxes, and how many of them training leaves out."""
    boxed = objects.crowd == 0
    logger.info(
        "Data set %s: %d images (%d without objects), %d boxes; training leaves out %d crowd regions and %d boxes "
        "without width or height.",
        name,
        len(objects.records),
        int((count_objects(objects.records) == 0).sum()),
        int(boxed.sum()),
        int((~boxed).sum()),
        int((objects.sides[boxed] <= 0).any(axis=1).sum()),
    )
    start, sides = objects.boxes[boxed, :2], objects.sides[boxed]
    end, sizes = start + sides, np.repeat(objects.sizes, objects.counts, axis=0)[boxed]
    beyond = int(((start < -TOLERANCE) | (end > sizes + TOLERANCE)).any(axis=1).sum())
    tiny = int(((start >= 0) & (end <= 1) & (sizes > 2)).all(axis=1).sum())
    if beyond or tiny:
        logger.warning(
            "Data set %s: %d boxes reach beyond their image by more than a pixel, and %d lie within its first pixel: "
            "check whether they are in pixels, and in the order that their bbox_mode says.",
            name,
            beyond,
            tiny,
        )


def _report_classes(name: str, classes: Sequence[str], counts: np.ndarray) -> None:
    """Log the boxes per class, and name the classes without any."""
    listed = [f"{label} {count}" for label, count in zip(classes, counts, strict=True) if count]
    empty = [label for label, count in zip(classes, counts, strict=True) if not count]
    more = f" and {len(listed) - _LISTED_CLASSES} more classes" if len(listed) > _LISTED_CLASSES else ""
    none = f"; none of {', '.join(empty)}" if empty else ""
    logger.info("Boxes per class of %s: %s%s%s.", name, ", ".join(listed[:_LISTED_CLASSES]) or "no box", more, none)
