"""Checks and repairs of the annotations of a split: ids, references, area, iscrowd, segmentation."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from align_detr.data.annotation_table import AnnotationTable, column_of
from align_detr.data.check_boxes import repair_boxes
from align_detr.data.findings import Findings
from align_detr.data.number_columns import EXACT
from align_detr.data.values import find_repeated, match_ids, read_number, read_numbers

_COMPRESSED = re.compile("[0-o]*[0-O]")  # six bits per character from "0" on, of which the last continues no number
_LARGEST_MASK = 2**32  # pixels, which pycocotools counts in 32 bits
_NUMBERS = {int, float}

Columns = dict[str, Sequence[Any]]
"""Key of an annotation: its repaired value in every annotation. Keys that need no repair are not there."""


def repair_objects(
    findings: Findings, images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]]
) -> Sequence[dict[str, Any]]:
    """Return the annotations with ids, references, boxes, area and iscrowd as COCO's evaluation takes them.

    `images` and `categories` are the repaired ones.
    """
    annotations = findings.annotations.annotations
    repeated = _find_repetitions(findings)
    repaired = _repair_ids(findings, repeated)
    image_rows, column = _repair_references(findings, "image", [image["id"] for image in images])
    repaired |= column
    ids = [category["id"] for category in categories]
    category_rows, column = _repair_references(findings, "category", ids, known=_listed(categories))
    repaired |= column
    crowd, column = _repair_crowds(findings)
    repaired |= column
    boxes, column = repair_boxes(findings, _sizes_of(image_rows, images), crowd)
    repaired |= column | _repair_areas(findings, boxes)
    repaired |= _repair_segmentations(findings) | _repair_keypoints(findings)
    ignore = column_of(annotations, "ignore")
    findings.add("ignored", [row for row, value in enumerate(ignore) if value and read_number(value) != 0], ignore)
    _report_unused(findings, categories, category_rows[(category_rows >= 0) & (crowd == 0)])
    if not repaired:
        return annotations
    if isinstance(annotations, AnnotationTable):  # which has no repetitions
        return annotations.replaced(repaired)
    copies = [dict(annotation) for annotation in annotations]
    for key, values in repaired.items():
        for copy, value in zip(copies, values, strict=True):
            copy[key] = value
    return [copy for row, copy in enumerate(copies) if row not in repeated]


def _find_repetitions(findings: Findings) -> set[int]:
    """Return the rows of annotations that stand in the list before, with the same id and everything else."""
    annotations = findings.annotations.annotations
    pairs = find_repeated(column_of(annotations, "id"))
    rows = [row for row, first in pairs if annotations[row] == annotations[first]]
    findings.add("annotation-repeated", rows)
    return set(rows)


def _repair_ids(findings: Findings, repeated: set[int]) -> Columns:
    """Return new ids from 1 if COCO's evaluation cannot take the ids as they are."""
    given: list[Any] = column_of(findings.annotations.annotations, "id")
    whole = set(map(type, given)) <= {int}
    if whole and (not given or (min(given) > 0 and max(given) <= EXACT)) and len(set(given)) == len(given):
        return {}
    findings.add("annotation-id-missing", [row for row, id_ in enumerate(given) if id_ is None])
    text = [row for row, id_ in enumerate(given) if id_ is not None and type(id_) is not int]
    findings.add("annotation-id-text", text, given)
    numbers = [(row, id_) for row, id_ in enumerate(given) if type(id_) is int]
    findings.add("annotation-id-zero", [row for row, id_ in numbers if id_ <= 0], given)
    findings.add("annotation-id-large", [row for row, id_ in numbers if id_ > EXACT])
    findings.add("annotation-id-repeated", [row for row, _ in find_repeated(given) if row not in repeated])
    return {"id": range(1, len(given) + 1)}


def _repair_references(findings: Findings, noun: str, ids: Sequence[Any], **words: str) -> tuple[np.ndarray, Columns]:
    """Return the row of every annotation's image or category (`noun`) among `ids`, -1 for none.

    `words` are of the sentence on references that are not among `ids`.
    """
    key = f"{noun}_id"
    given = column_of(findings.annotations.annotations, key)
    rows, other_type = match_ids(given, ids)
    findings.add(f"{noun}-reference-text", other_type)
    lost = np.flatnonzero(rows < 0).tolist()
    findings.add(f"{noun}-reference-missing", [row for row in lost if given[row] is None])
    unknown = [row for row in lost if given[row] is not None]
    hint = _shift_hint(given, ids) if unknown else ""
    if unknown and not hint and noun == "category":
        hint = _shifted_images_hint(findings.annotations.annotations, given, unknown, ids)
    findings.add(f"{noun}-reference-unknown", unknown, given, hint=hint, **words)
    if not other_type:
        return rows, {}
    return rows, {key: [ids[row] if row >= 0 else value for row, value in zip(rows, given, strict=True)]}


def _shift_hint(given: Sequence[Any], ids: Sequence[Any]) -> str:
    """Return what to do where all references are off by one."""
    known, numbers = set(ids), {value for value in given if type(value) is int}
    for shift in (1, -1):
        if numbers and {value + shift for value in numbers} <= known:
            return f"add {shift} to all of them if they count from {'0' if shift > 0 else '1'}, or "
    return ""


def _shifted_images_hint(
    annotations: Sequence[Any], given: Sequence[Any], unknown: Sequence[int], ids: Sequence[Any]
) -> str:
    """Return what to do where the unknown class is the number behind the last, in images without the first, 0.

    Those may be labelled from 1 on, and then their other classes are wrong as well, which nothing else shows.
    """
    if set(ids) != set(range(len(ids))) or any(given[row] != len(ids) for row in unknown):
        return ""
    image_of = [str(value) for value in column_of(annotations, "image_id")]  # a value that is no id has no hash
    images = {image_of[row] for row in unknown}
    if any(image in images and value == 0 for image, value in zip(image_of, given, strict=True)):
        return ""
    return (
        f"in the images with it ({len(images)} in all, none with a class 0) and others from the same source, "
        "take 1 off every class if they count from 1, or "
    )


def _listed(categories: Sequence[dict[str, Any]]) -> str:
    more = f" and {len(categories) - 5} more" if len(categories) > 5 else ""
    return ", ".join(f"{category['id']} {category['name']}" for category in categories[:5]) + more


def _sizes_of(image_rows: np.ndarray, images: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return width and height of every annotation's image, infinite where that is not known: (N, 2) float64."""
    sizes = np.array([(image["width"], image["height"]) for image in images] + [(0, 0)], dtype=np.float64)
    return np.where(sizes > 0, sizes, np.inf)[image_rows]  # row -1, no image, is the (0, 0)


def _repair_crowds(findings: Findings) -> tuple[np.ndarray, Columns]:
    """Return iscrowd of every annotation as 0 or 1."""
    given = column_of(findings.annotations.annotations, "iscrowd")
    if set(map(type, given)) <= {int} and set(given) <= {0, 1}:
        return np.array(given, dtype=np.int64), {}
    words = {"true": 1, "false": 0}
    read: list[Any] = [words.get(str(value).lower(), 0 if value is None else read_number(value)) for value in given]
    unknown = [row for row, number in enumerate(read) if number not in (0, 1)]
    findings.add("iscrowd-missing", [row for row, value in enumerate(given) if value is None])
    converted = [row for row, value in enumerate(given) if value is not None and type(value) is not int]
    findings.add("iscrowd-text", sorted(set(converted) - set(unknown)), [repr(value) for value in given])
    findings.add("iscrowd-unknown", unknown, [repr(value) for value in given])
    crowd = [int(number) if number in (0, 1) else 0 for number in read]
    return np.array(crowd, dtype=np.int64), {"iscrowd": crowd}


def _repair_areas(findings: Findings, boxes: np.ndarray) -> Columns:
    """Return the areas; width x height where an area is missing, or 0 although the box has one."""
    given = column_of(findings.annotations.annotations, "area")
    areas, texts = read_numbers(given)
    of_boxes = boxes[:, 2] * boxes[:, 3]  # NaN, and so never usable, for a box that is refused
    missing = ~np.isfinite(areas) | ((areas <= 0) & (of_boxes > 0))
    if not missing.any() and not texts:
        return {}
    rows = np.flatnonzero(missing).tolist()
    if findings.annotations.where is None or len(rows) < len(given):  # label files have no areas
        findings.add("area-missing", rows, given)
    findings.add("area-text", sorted(set(texts) - set(rows)), [repr(value) for value in given])
    column = list(given)
    for row in {*rows, *texts}:
        column[row] = float(of_boxes[row] if missing[row] else areas[row])
    return {"area": column}


def _repair_segmentations(findings: Findings) -> Columns:
    """Return the segmentations without what is no polygon or mask; a box never depends on them."""
    given = column_of(findings.annotations.annotations, "segmentation")
    doubtful = [row for row, value in enumerate(given) if value and not is_sound_segmentation(value)]
    if not doubtful:
        return {}
    flat = [row for row in doubtful if _is_polygon(given[row])]
    findings.add("polygon-flat", flat)
    masks = [row for row in doubtful if isinstance(given[row], dict)]
    findings.add("mask-broken", masks)
    findings.add("polygon-broken", sorted(set(doubtful) - {*flat, *masks}))
    column = list(given)
    for row in doubtful:
        value = given[row]
        parts = value if isinstance(value, list) else []
        column[row] = [value] if _is_polygon(value) else [part for part in parts if _is_polygon(part)]
    return {"segmentation": column}


def _repair_keypoints(findings: Findings) -> Columns:
    """Return the keypoints without those that are none; a box never depends on them."""
    given = column_of(findings.annotations.annotations, "keypoints")
    broken = [row for row, value in enumerate(given) if value and not are_sound_keypoints(value)]
    if not broken:
        return {}
    findings.add("keypoints-broken", broken)
    column = list(given)
    for row in broken:
        column[row] = []
    return {"keypoints": column}


def is_sound_segmentation(segmentation: Any) -> bool:
    """Return whether a segmentation is a run-length encoding, or polygons of at least three points."""
    if type(segmentation) is dict:
        return _is_mask(segmentation.get("counts"), segmentation.get("size"))
    return type(segmentation) is list and all(map(_is_polygon, segmentation))


def are_sound_keypoints(keypoints: Any) -> bool:
    """Return whether keypoints are triples of numbers."""
    return _are_numbers(keypoints) and not len(keypoints) % 3


def _is_mask(counts: Any, size: Any) -> bool:
    """Return whether a run-length encoding fits its size (height, width) or, if compressed, can be read."""
    if type(size) is not list or len(size) != 2 or set(map(type, size)) != {int}:
        return False
    if min(size) <= 0 or size[0] * size[1] >= _LARGEST_MASK:
        return False
    if type(counts) is list:
        return set(map(type, counts)) == {int} and min(counts) >= 0 and sum(counts) == size[0] * size[1]
    text = counts.decode("latin-1") if type(counts) is bytes else counts
    return type(text) is str and _COMPRESSED.fullmatch(text) is not None


def _is_polygon(part: Any) -> bool:
    """Return whether a part of a segmentation is x and y of at least three points."""
    return _are_numbers(part) and len(part) >= 6 and not len(part) % 2


def _are_numbers(values: Any) -> bool:
    """Return whether a value is a list of nothing but numbers."""
    return type(values) is list and set(map(type, values)) <= _NUMBERS


def _report_unused(findings: Findings, categories: Sequence[dict[str, Any]], used: np.ndarray) -> None:
    counts = np.bincount(used, minlength=len(categories))
    unused = {str(category["id"]) for category, count in zip(categories, counts, strict=True) if not count}
    listed = enumerate(findings.annotations.categories)
    findings.add("category-unused", [row for row, category in listed if str(category.get("id")) in unused])
