"""COCO's files of ground truth and of results, read into columns; one sentence for what is wrong with them."""

import json
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.analysis.tables import Detections, Floats, Integers, Truth, make_objects, sort_detections
from align_detr.errors import DatasetError


def read_truth(path: str | Path) -> Truth:
    """Read an annotation file in COCO's format.

    An object without `area` has that of its box. Raise DatasetError for a file that cannot be used.
    """
    content = _load(Path(path))
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise DatasetError(f"{path} is no COCO annotation file: it needs the keys images, annotations and categories.")
    images = sorted(content["images"], key=lambda image: (isinstance(image["id"], str), image["id"]))
    categories = sorted(content["categories"], key=lambda category: category["id"])
    image_index = _index([image["id"] for image in images], path, "image")
    class_index = _index([category["id"] for category in categories], path, "category")
    annotations = content.get("annotations") or []
    boxes = _boxes(annotations, path, "annotation")
    area = [a["bbox"][2] * a["bbox"][3] if a.get("area") is None else a["area"] for a in annotations]
    return Truth(
        image_ids=list(image_index),
        file_names=[str(image.get("file_name", "")) for image in images],
        category_ids=list(class_index),
        class_names=[str(category.get("name", category["id"])) for category in categories],
        objects=make_objects(
            image=_indices(annotations, "image_id", image_index, path, "annotation"),
            label=_indices(annotations, "category_id", class_index, path, "annotation"),
            box=boxes,
            area=area,
            crowd=[bool(a.get("iscrowd", 0)) for a in annotations],
        ),
    )


def read_results(path: str | Path, truth: Truth) -> Detections:
    """Read a results file in COCO's format: a list of image_id, category_id, bbox (x, y, width, height) and score.

    Raise DatasetError, with the number of the entry, for a file that cannot be used with this ground truth.
    """
    content = _load(Path(path))
    if not isinstance(content, list):
        raise DatasetError(f"{path} is no COCO results file: it must be a list of detections.")
    image_index = {image: index for index, image in enumerate(truth.image_ids)}
    class_index = {category: index for index, category in enumerate(truth.category_ids)}
    image = _indices(content, "image_id", image_index, path, "entry")
    label = _indices(content, "category_id", class_index, path, "entry")
    box = _boxes(content, path, "entry")
    score = _numbers([[entry.get("score")] for entry in content], 1, path, "entry", "score")
    return sort_detections(image, label, score[:, 0], box)


def _load(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): name a file.") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON file ({error}): write it again.") from error


def _index(ids: Sequence[Any], path: str | Path, kind: str) -> dict[Any, int]:
    """Return id -> index. Raise DatasetError for an id that repeats."""
    index: dict[Any, int] = {}
    for identity in ids:
        if identity in index:
            raise DatasetError(f"{path} has several {kind} entries with the id {identity!r}: give each another id.")
        index[identity] = len(index)
    return index


def _indices(
    entries: Sequence[Mapping[str, Any]], key: str, index: Mapping[Any, int], path: str | Path, kind: str
) -> Integers:
    """Return the index that each entry's `key` names."""
    try:
        return np.fromiter((index[entry[key]] for entry in entries), dtype=np.int64, count=len(entries))
    except (KeyError, TypeError):
        number = next(k for k, entry in enumerate(entries) if not _is_known(entry, key, index))
        entry = entries[number]
        if not isinstance(entry, Mapping) or key not in entry:
            raise DatasetError(f"{path}: {kind} {number} (from 0) has no {key}: add it.") from None
        raise DatasetError(
            f"{path}: {kind} {number} (from 0) has {key} {entry[key]!r}, which is not in the ground truth: use its ids."
        ) from None


def _is_known(entry: Any, key: str, index: Mapping[Any, int]) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get(key), Hashable) and entry.get(key) in index


def _boxes(entries: Sequence[Mapping[str, Any]], path: str | Path, kind: str) -> Floats:
    return _numbers([entry.get("bbox") for entry in entries], 4, path, kind, "bbox")


def _numbers(rows: Sequence[Any], width: int, path: str | Path, kind: str, key: str) -> Floats:
    """Return rows of `width` finite numbers, (n, width). Raise DatasetError for the first entry without."""
    try:
        if any(len(row) != width for row in rows):
            raise ValueError
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=width * len(rows))
    except (TypeError, ValueError):
        number = next(k for k, row in enumerate(rows) if not _are_numbers(row, width))
    else:
        values = flat.reshape(-1, width)
        finite = np.isfinite(values).all(axis=1)
        if finite.all():
            return values
        number = int(np.argmin(finite))
    given = rows[number][0] if key == "score" else rows[number]
    wanted = "a finite number" if width == 1 else f"{width} finite numbers"
    raise DatasetError(f"{path}: {kind} {number} (from 0) has {key} {given!r}, but must have {wanted}: correct it.")


def _are_numbers(row: Any, width: int) -> bool:
    return (
        isinstance(row, Sequence)
        and not isinstance(row, str)
        and len(row) == width
        and all(isinstance(value, (int, float)) for value in row)
    )
