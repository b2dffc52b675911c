"""Boxes of a COCO file in columns, in the order of detectron2's records: what processes share as one memory map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align_detr.data.annotation_table import AnnotationTable, column_of
from align_detr.data.annotations import Annotations
from align_detr.data.number_columns import Column, NumberColumn, compact
from align_detr.data.records import class_indices, in_order
from align_detr.data.values import match_ids

ARRAYS = {
    "image_id": "i8",
    "image_id_text_end": "i8",
    "file_name_end": "i8",
    "size": "i8",
    "position": "i8",
    "objects_end": "i8",
    "id": "i8",
    "bbox": "f8",
    "area": "f8",
    "category": "i4",
    "bbox_whole": "?",
    "area_whole": "?",
    "crowd": "?",
    "image_id_text": "u1",
    "file_name": "u1",
}
"""Name and type of each array; those of larger numbers first, so that all are aligned in a file."""


@dataclass(frozen=True)
class RecordColumns:
    """Images in the order of their ids, and their objects, image by image.

    `arrays`: ARRAYS. Of N images, <name>_end are N + 1 numbers, between which an image's bytes or objects lie; an image
    has either an `image_id` or an `image_id_text`; `size` is width and height, `position` its index in the file. Of M
    objects, `bbox` is (M, 4), and <name>_whole tells which numbers are integers in the file. `categories`: id and name
    of each in the order of the file, and supercategory where it has one.
    """

    arrays: Mapping[str, np.ndarray]
    categories: list[dict[str, Any]]

    def text(self, name: str, image: int) -> str:
        """Return a text of an image."""
        ends = self.arrays[f"{name}_end"]
        return self.arrays[name][ends[image] : ends[image + 1]].tobytes().decode()


def to_columns(annotations: Annotations) -> RecordColumns | None:
    """Return the columns of repaired annotations, None where they cannot hold the values.

    That is so for images with whole ids beside text, numbers that float64 rounds, and texts that are not Unicode.
    """
    images, entries = in_order(annotations.images), annotations.annotations
    ids, classes = [image["id"] for image in images], class_indices(annotations.categories)
    positions = {image["id"]: position for position, image in enumerate(annotations.images)}
    image_rows, _ = match_ids(column_of(entries, "image_id"), ids)
    order = np.argsort(image_rows, kind="stable")
    numbers = {key: _numbers_of(entries, key) for key in ("id", "bbox", "area", "iscrowd")}
    kinds = set(map(type, ids))
    if None in numbers.values() or len(kinds) > 1:
        return None
    of = {key: column[order] for key, column in numbers.items() if column is not None}
    category, _ = match_ids(column_of(entries, "category_id"), list(classes))
    try:
        arrays = {
            "image_id": [] if kinds == {str} else ids,
            **_encode("image_id_text", ids if kinds == {str} else []),
            **_encode("file_name", [image["file_name"] for image in images]),
            "size": [(image["width"], image["height"]) for image in images],
            "position": [positions[id_] for id_ in ids],
            "objects_end": np.append(0, np.bincount(image_rows, minlength=len(images)).cumsum()),
            "category": category[order],
            "id": of["id"].values,
            "bbox": of["bbox"].values.reshape(-1, 4),
            "bbox_whole": of["bbox"].whole.reshape(-1, 4),
            "area": of["area"].values,
            "area_whole": of["area"].whole,
            "crowd": of["iscrowd"].values,
        }
        typed = {name: np.asarray(arrays[name]).astype(dtype) for name, dtype in ARRAYS.items()}
    except (OverflowError, UnicodeEncodeError):
        return None
    kept = ("id", "name", "supercategory")
    categories = [{key: each[key] for key in kept if key in each} for each in annotations.categories]
    return RecordColumns(typed, categories)


def _numbers_of(entries: Sequence[dict[str, Any]], key: str) -> NumberColumn | None:
    """Return a column of numbers; None if it has other values."""
    known: Column | None = entries.columns.get(key) if isinstance(entries, AnnotationTable) else None
    column = compact(column_of(entries, key)) if known is None else known
    return column if isinstance(column, NumberColumn) else None


def _encode(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return texts as bytes and where they end."""
    encoded = [text.encode() for text in texts]
    return {
        name: np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}_end": np.cumsum([0, *map(len, encoded)]),
    }
