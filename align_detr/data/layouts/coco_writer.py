"""Writing of COCO's layout."""

import json
from collections.abc import Mapping
from pathlib import Path

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.copying import copy_images, free_names, new_file

DIGITS = 4  # of a pixel, behind the point


def write(splits: Mapping[str, Annotations], out: Path) -> None:
    """Write annotations/instances_<split>.json, and the images into images/<split>.

    Boxes are rounded to 4 digits. Ids of images stay; those of categories as well unless they count from 0, which
    some readers take for the background: then they count from 1.
    """
    for split, annotations in splits.items():
        names = free_names(annotations, set())
        copy_images(annotations, names, out / "images" / split)
        path = new_file(out, f"annotations/instances_{split}.json")
        path.write_text(json.dumps(_content(annotations, names), ensure_ascii=False), encoding="utf-8")


def _content(annotations: Annotations, names: list[str]) -> dict:
    """Return the content of a COCO file."""
    shift = max(0, 1 - min((category["id"] for category in annotations.categories), default=1))
    boxes = []
    for number, each in enumerate(annotations.annotations, start=1):
        bbox = [round(value, DIGITS) for value in each["bbox"]]
        area = round(each.get("area") or bbox[2] * bbox[3], DIGITS)
        changed = {"id": number, "category_id": each["category_id"] + shift, "bbox": bbox, "area": area}
        boxes.append({"iscrowd": 0, "segmentation": [], **each, **changed})
    return {
        "info": {},
        "licenses": [],
        "images": [{**image, "file_name": name} for image, name in zip(annotations.images, names, strict=True)],
        "annotations": boxes,
        "categories": [{**category, "id": category["id"] + shift} for category in annotations.categories],
    }
