"""Ground truth of a registered data set, made of its records: the same for every kind of registration."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.data import load_dataset
from align_detr.errors import DatasetError

logger = logging.getLogger(__name__)

ImageKey = int | str
"""The `image_id` of an image in its data set, or its file name where the data set numbers no images."""


@dataclass(frozen=True)
class GroundTruth:
    """Images, objects and classes of a data set.

    `images`: key -> number, from 1 in the order of the keys, which is COCO's order of images. `annotations`: id (from
    1), image_id (that number), category_id (class index + 1), bbox (x, y, width, height in pixels), area, iscrowd.
    `class_names`: of each class index; `is_named`: whether the data set names its classes (if not, their number is not
    known either). `original_categories`: class index -> category id in the data set's source, where they differ.
    """

    dataset_name: str
    images: dict[ImageKey, int]
    file_names: dict[ImageKey, str]
    annotations: list[dict[str, Any]]
    class_names: list[str]
    is_named: bool
    original_categories: dict[int, int]

    def most_objects(self) -> tuple[str, str, int]:
        """Return the file name, the class and the number of objects where an image has most of one class."""
        counts = Counter((a["image_id"], a["category_id"]) for a in self.annotations if not a["iscrowd"])
        if not counts:
            return "", "", 0
        ((image, category), count), *_ = counts.most_common(1)
        key = next(key for key, number in self.images.items() if number == image)
        return self.file_names[key], self.class_labels()[category - 1], count

    def class_counts(self) -> list[tuple[int, int]]:
        """Return (objects, images with such an object) of each class; crowd regions are left out."""
        objects = [(a["category_id"] - 1, a["image_id"]) for a in self.annotations if not a["iscrowd"]]
        boxes = np.bincount([label for label, _ in objects], minlength=len(self.class_names))
        images = np.bincount([label for label, _ in set(objects)], minlength=len(self.class_names))
        return list(zip(boxes.tolist(), images.tolist(), strict=True))

    def class_labels(self) -> list[str]:
        """Return the classes' names; those that repeat get their category id, so that each class has a label."""
        repeated = {name for name in self.class_names if self.class_names.count(name) > 1}
        return [
            f"{name} (category {self.category_id(index)})" if name in repeated else name
            for index, name in enumerate(self.class_names)
        ]

    def category_id(self, index: int) -> int:
        """Return the category id of a class in the data set's source."""
        return self.original_categories.get(index, index)


def image_key(entry: Mapping[str, Any]) -> ImageKey:
    """Return what tells the image of a record, or of a mapped record, from the others of its data set."""
    return entry["image_id"] if "image_id" in entry else entry["file_name"]


def read_truth(dataset_name: str) -> GroundTruth:
    """Load a registered data set and return its ground truth.

    Raise DatasetError as `load_dataset` does, and for two images of one id.
    """
    records = load_dataset(dataset_name)
    file_names: dict[ImageKey, str] = {}
    for record in records:
        key = image_key(record)
        if key in file_names:
            raise DatasetError(
                f"The images {file_names[key]} and {record['file_name']} of the data set '{dataset_name}' have the "
                f"same image_id {key!r}, so that detections cannot be told apart: give each image an id."
            )
        file_names[key] = record["file_name"]
    ordered = sorted(file_names, key=lambda key: (isinstance(key, str), key))
    images = {key: number for number, key in enumerate(ordered, start=1)}
    annotations = [
        _annotation(a, images[image_key(record)]) for record in records for a in record.get("annotations", ())
    ]
    for number, annotation in enumerate(annotations, start=1):  # COCO's metric takes id 0 for "no object"
        annotation["id"] = number
    names = MetadataCatalog.get(dataset_name).get("thing_classes")
    return GroundTruth(
        dataset_name=dataset_name,
        images=images,
        file_names=file_names,
        annotations=annotations,
        class_names=_number_classes(dataset_name, annotations) if names is None else list(names),
        is_named=names is not None,
        original_categories=_original_categories(dataset_name),
    )


def _annotation(source: Mapping[str, Any], image: int) -> dict[str, Any]:
    """Return an annotation of detectron2's form in COCO's, without its id."""
    box = source["bbox"]
    if source["bbox_mode"] != BoxMode.XYWH_ABS:
        box = BoxMode.convert(list(box), source["bbox_mode"], BoxMode.XYWH_ABS)
    box = [float(value) for value in box]
    area = source.get("area")
    return {
        "image_id": image,
        "category_id": source["category_id"] + 1,
        "bbox": box,
        "area": _area(source.get("segmentation"), box) if area is None else area,
        "iscrowd": int(source.get("iscrowd", 0) or 0),
    }


def _area(segmentation: Any, box: Sequence[float]) -> float:
    """Return the pixels of a mask (polygons or compressed RLE), or of the box where there is no mask."""
    if isinstance(segmentation, Mapping):
        return float(pycocotools.mask.area(segmentation))
    if segmentation:
        return sum(_polygon_area(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)) for polygon in segmentation)
    return box[2] * box[3]


def _polygon_area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _number_classes(dataset_name: str, annotations: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return names for the classes of a data set that names none."""
    logger.warning(
        "The data set '%s' names no classes, so that its table of APs numbers them: set "
        "MetadataCatalog.get('%s').thing_classes to their names.",
        dataset_name,
        dataset_name,
    )
    return [str(k) for k in range(max((a["category_id"] for a in annotations), default=0))]


def _original_categories(dataset_name: str) -> dict[int, int]:
    """Return class index -> category id in the data set's source; {} where the source counts as the model does."""
    mapping = MetadataCatalog.get(dataset_name).get("thing_dataset_id_to_contiguous_id") or {}
    return {index: number for number, index in mapping.items()}
