"""Annotations of registered data sets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.data.annotations import Annotations
from align_detr.data.coco import read_coco
from align_detr.errors import DatasetError


def read_registered(name: str) -> Annotations:
    """Return the annotations of a registered data set, from its COCO file or from the records of its function.

    Raise DatasetError for a function that fails.
    """
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and Path(json_file).is_file():
        return read_coco(json_file, image_root)
    try:
        records = DatasetCatalog.get(name)
    except DatasetError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise DatasetError(
            f"The data set '{name}' cannot be read ({type(error).__name__}: {error}): correct its paths or the "
            "function that is registered for it."
        ) from error
    return _annotations_of(name, records, metadata.get("thing_classes"))


def read_plain(name: str) -> Annotations:
    """Return `read_registered`, with nothing in the objects that JSON has not: a function's records may have arrays."""
    annotations = read_registered(name)
    return replace(annotations, annotations=_plain(annotations.annotations))


def _plain(value: Any) -> Any:
    """Return a value of lists, dictionaries, text and Python's numbers."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value.decode("ascii") if isinstance(value, bytes) else value  # bytes: of pycocotools' masks


def _annotations_of(name: str, records: Sequence[dict[str, Any]], class_names: Sequence[str] | None) -> Annotations:
    """Return detectron2's records in COCO's form, with classes counted from 0."""
    objects = [(record, a) for record in records for a in record.get("annotations", ())]
    if class_names is None:
        class_names = [str(number) for number in range(1 + max((a["category_id"] for _, a in objects), default=-1))]
    annotations = [
        {
            **{key: value for key, value in a.items() if key != "bbox_mode"},
            "id": number,
            "image_id": record["image_id"],
            "bbox": _xywh(a),
            **({"keypoints": _as_indices(a["keypoints"])} if "keypoints" in a else {}),
        }
        for number, (record, a) in enumerate(objects, start=1)
    ]
    images = [
        {"id": r["image_id"], **{key: r[key] for key in ("file_name", "width", "height") if key in r}} for r in records
    ]
    categories = [{"id": number, "name": label} for number, label in enumerate(class_names)]
    return Annotations(images, annotations, categories, image_root=Path(), source=Path(name))


def _xywh(annotation: dict[str, Any]) -> list[float]:
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    return list(box if mode == BoxMode.XYWH_ABS else BoxMode.convert(list(box), mode, BoxMode.XYWH_ABS))


def _as_indices(keypoints: Sequence[float]) -> list[float]:
    """Return keypoints (x, y, visibility) as COCO has them, indices of pixels: records have coordinates."""
    return [value if number % 3 == 2 else value - 0.5 for number, value in enumerate(keypoints)]
