"""Writing of YOLO's layout, as Ultralytics reads it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.copying import copy_images, free_names, new_file

logger = logging.getLogger(__name__)

DIGITS = 8  # of a fraction of the image, behind the point


def write(splits: Mapping[str, Annotations], out: Path) -> None:
    """Write images/<split>, labels/<split> and data.yaml; an image without objects has an empty label file.

    Boxes are cut at the image's edges, which YOLO's readers require, and rounded to 8 digits of a fraction. YOLO knows
    no crowd regions: they are left out, like boxes of which nothing is inside the image; the log counts both.
    """
    for split, annotations in splits.items():
        names = free_names(annotations, set())
        copy_images(annotations, names, out / "images" / split)
        lines = _lines(annotations)
        for image, name in zip(annotations.images, names, strict=True):
            path = new_file(out / "labels" / split, Path(name).with_suffix(".txt"))
            path.write_text("".join(lines[image["id"]]), encoding="utf-8")
    places = {split: f"images/{split}" for split in splits}
    if "val" not in places and "train" in places:
        logger.info("There is no validation split: Ultralytics wants one, a fraction divides off one here.")
    class_names = next(iter(splits.values())).class_names
    content = {**places, "names": dict(enumerate(class_names))}
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _lines(annotations: Annotations) -> dict[Any, list[str]]:
    """Return the lines of the label files by image id."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations.images}
    ids = sorted(category["id"] for category in annotations.categories)
    index_of = {id_: index for index, id_ in enumerate(ids)}
    lines: dict[Any, list[str]] = {id_: [] for id_ in sizes}
    crowds = outside = 0
    for each in annotations.annotations:
        box = _fractions(each["bbox"], sizes[each["image_id"]])
        crowds += bool(each.get("iscrowd"))
        outside += box is None
        if box is not None and not each.get("iscrowd"):
            numbers = " ".join(f"{value:.{DIGITS}f}" for value in box)
            lines[each["image_id"]].append(f"{index_of[each['category_id']]} {numbers}\n")
    if crowds or outside:
        text = "%s: YOLO has no place for %d crowd regions and %d boxes outside their image, which are left out."
        logger.warning(text, annotations.source, crowds, outside)
    return lines


def _fractions(bbox: list[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return the box's centre and size in fractions of the image, cut at its edges; None if nothing is inside."""
    (x, y, w, h), (width, height) = bbox, size
    x0, x1 = (min(max(value / width, 0.0), 1.0) for value in (x, x + w))
    y0, y1 = (min(max(value / height, 0.0), 1.0) for value in (y, y + h))
    return ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None
