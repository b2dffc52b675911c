"""Loading and counting of registered data sets; a fault in their files is one sentence."""

import difflib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.errors import DatasetError
from align_detr.paths import SMALL_DATA_REMEDY, is_small_data

logger = logging.getLogger(__name__)

# Records that were read to be counted, by data set; None outside of `datasets_read_once`.
_counted: ContextVar[dict[str, list[dict[str, Any]]] | None] = ContextVar("counted", default=None)


@contextmanager
def datasets_read_once() -> Iterator[None]:
    """Keep what `count_images` reads until a loader takes it: COCO's annotations take tens of seconds to read.

    Inside, a name stands for one set of records; register no data set anew.
    """
    token = _counted.set({})
    try:
        yield
    finally:
        _counted.reset(token)


def as_names(names: str | Iterable[str]) -> list[str]:
    """Return a list of data set names from one name or several (a LazyConfig gives a ListConfig)."""
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if not listed:
        raise DatasetError("The config names no data set: set dataloader.train.dataset and dataloader.test.dataset.")
    return listed


def load_dataset(names: str | Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of one or several registered data sets, in detectron2's format, after `check_dataset`.

    Raise DatasetError for a name that is not registered, a missing file or folder, annotations that cannot be used,
    and data sets whose classes differ.
    """
    names, counted = as_names(names), _counted.get() or {}
    records: list[dict[str, Any]] = []
    for name in names:
        records += counted.pop(name) if name in counted else _read_and_check(name)
    _check_same_classes(names)
    return records


def count_images(names: str | Iterable[str]) -> int:
    """Return the number of images of one or several data sets, which are loaded for it.

    Raise DatasetError as `load_dataset` does.
    """
    names, counted = as_names(names), _counted.get()
    if counted is None:
        return len(load_dataset(names))
    counted.update({name: _read_and_check(name) for name in names if name not in counted})
    _check_same_classes(names)
    return sum(len(counted[name]) for name in names)


def check_dataset(name: str, records: Sequence[dict[str, Any]]) -> None:
    """Check a loaded data set's annotations, and log what training leaves out.

    Raise DatasetError for a data set without images, a missing image folder, an annotation without a box or with a
    box that is not finite, and a category outside the data set's classes.
    """
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if not len(records):
        raise DatasetError(f"The data set '{name}' has no images: check the \"images\" of {json_file or 'its source'}.")
    if image_root and not os.path.isdir(image_root):
        raise DatasetError(
            f"The image folder {image_root} of the data set '{name}' does not exist: {_folder_remedy(image_root)}."
        )
    annotations = [(record, a) for record in records for a in record.get("annotations", ())]
    _check_boxes(name, annotations)
    classes = metadata.get("thing_classes")
    _check_categories(name, annotations, None if classes is None else len(classes))
    _report(name, records, annotations)


def check_num_classes(model_num_classes: int, dataset_name: str) -> None:
    """Raise DatasetError unless the model has as many classes as the data set, which is loaded if it never was."""
    if MetadataCatalog.get(dataset_name).get("thing_classes") is None:
        load_dataset(dataset_name)  # with which detectron2 learns the classes
    classes = MetadataCatalog.get(dataset_name).get("thing_classes")
    if classes is not None and model_num_classes != len(classes):
        raise DatasetError(
            f"The model has {model_num_classes} classes, but the data set '{dataset_name}' has {len(classes)}: set "
            f"model.head.num_classes={len(classes)} (in an R-CNN, model.roi_heads.num_classes)."
        )


def _read_and_check(name: str) -> list[dict[str, Any]]:
    records = _read(name)
    check_dataset(name, records)
    return records


def _check_same_classes(names: Sequence[str]) -> None:
    classes = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    for name in names[1:]:
        if classes[name] != classes[names[0]]:
            raise DatasetError(
                f"The data sets '{names[0]}' and '{name}' have different classes and cannot be used together: give "
                "both the same categories."
            )


def _check_boxes(name: str, annotations: Sequence[tuple[dict, dict]]) -> None:
    for record, annotation in annotations:
        if len(annotation.get("bbox", ())) != 4:
            raise DatasetError(f"{_describe(name, record)} has no box of four numbers: complete or remove it.")
    used = [(r, a) for r, a in annotations if not a.get("iscrowd", 0)]
    boxes = np.array([a["bbox"] for _, a in used], dtype=np.float64).reshape(-1, 4)
    broken = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(broken):
        record, annotation = used[broken[0]]
        raise DatasetError(
            f"{_describe(name, record)} has the box {annotation['bbox']}, which is not finite: correct or remove it."
        )


def _check_categories(name: str, annotations: Sequence[tuple[dict, dict]], num_classes: int | None) -> None:
    for record, annotation in annotations:
        category = annotation["category_id"]
        if category < 0:
            raise DatasetError(
                f"{_describe(name, record)} has class {category}, but classes count from 0: correct the annotation."
            )
        if num_classes is not None and category >= num_classes:
            raise DatasetError(
                f"{_describe(name, record)} has class {category}, but the data set has {num_classes} classes, counted "
                "from 0: correct the annotation."
            )


def _describe(name: str, record: dict) -> str:
    """Return the beginning of an error about one annotation of `record`."""
    return f"An annotation of image {record.get('image_id')} ({record['file_name']}) in the data set '{name}'"


def _report(name: str, records: Sequence[dict], annotations: Sequence[tuple[dict, dict]]) -> None:
    """Log one line: images, boxes, and how many of them training leaves out."""
    crowd = sum(bool(a.get("iscrowd", 0)) for _, a in annotations)
    boxed = [(r, a) for r, a in annotations if not a.get("iscrowd", 0)]
    boxes = np.array([a["bbox"] for _, a in boxed], dtype=np.float64).reshape(-1, 4)
    is_xyxy = np.array([a["bbox_mode"] == BoxMode.XYXY_ABS for _, a in boxed], dtype=bool)
    sides = boxes[:, 2:] - boxes[:, :2] * is_xyxy[:, None]
    degenerate = int((sides <= 0).any(axis=1).sum())
    used = {id(r) for r, _ in boxed}
    logger.info(
        "Data set %s: %d images (%d without objects), %d boxes; training leaves out %d crowd regions and %d boxes "
        "without width or height.",
        name,
        len(records),
        sum(id(r) not in used for r in records),
        len(boxed),
        crowd,
        degenerate,
    )


def _read(name: str) -> list[dict[str, Any]]:
    """Return what detectron2 reads for `name`; raise DatasetError for any failure."""
    registered = DatasetCatalog.list()
    if name not in registered:
        near = difflib.get_close_matches(name, registered, n=3, cutoff=0.5)
        names = f"use {' or '.join(near)}" if near else f"use one of {', '.join(sorted(registered))}"
        raise DatasetError(
            f"The data set '{name}' is not registered: {names}, or register it with "
            "detectron2.data.datasets.register_coco_instances."
        )
    try:
        return DatasetCatalog.get(name)
    except DatasetError:
        raise
    except Exception as error:  # the cause is looked for only now, so that a sound file is read once
        raise _diagnose(name, error) from error


def _diagnose(name: str, error: Exception) -> DatasetError:
    """Return an error that names what made loading fail."""
    json_file = MetadataCatalog.get(name).get("json_file")
    if isinstance(error, MemoryError):
        return DatasetError(f"The data set '{name}' does not fit into memory: free some, or use a smaller data set.")
    if json_file is None:
        return DatasetError(
            f"The data set '{name}' cannot be loaded ({type(error).__name__}: {error}): correct the function that is "
            "registered for it."
        )
    if not os.path.isfile(json_file):
        return DatasetError(
            f"The annotation file {json_file} of the data set '{name}' does not exist: {_folder_remedy(json_file)}."
        )
    try:
        coco = json.loads(Path(json_file).read_text(encoding="utf-8"))
        known = {category["id"] for category in coco["categories"]}
        images = {image["id"]: image["file_name"] for image in coco["images"]}
        for annotation in coco.get("annotations", ()):
            if annotation["category_id"] not in known:
                image = images.get(annotation["image_id"], "not in the file")
                return DatasetError(
                    f"In {json_file}, annotation {annotation['id']} of image {annotation['image_id']} ({image}) has "
                    f"category_id {annotation['category_id']}, which is not among the file's categories: correct it or "
                    "add the category."
                )
    except (ValueError, KeyError, TypeError) as fault:
        return DatasetError(
            f"The annotation file {json_file} of the data set '{name}' is not in COCO's format "
            f"({type(fault).__name__}: {fault}): correct the file."
        )
    return DatasetError(
        f"The annotation file {json_file} of the data set '{name}' cannot be used ({type(error).__name__}: {error}): "
        "correct the file."
    )


def _folder_remedy(path: str) -> str:
    """Return the variable to set for a file that is not found, by the folder it should be in."""
    if is_small_data(path):
        return SMALL_DATA_REMEDY
    return "set DETECTRON2_DATASETS to the folder of the data sets, or register the data set with its right paths"
