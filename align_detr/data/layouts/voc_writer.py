"""Writing of Pascal VOC's layout."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.copying import copy_images, free_names, new_file

DIGITS = 4  # of a pixel, behind the point


def write(splits: Mapping[str, Annotations], out: Path) -> None:
    """Write Annotations/*.xml, ImageSets/Main/<split>.txt, JPEGImages/ and classes.txt.

    Boxes are written as today's tools read them: edges counted from 0, rounded to 4 digits, without VOC's one pixel.
    Crowd regions become difficult objects. classes.txt keeps the order of the classes, for which VOC has no place.
    """
    taken: set[str] = set()
    for split, annotations in splits.items():
        names = free_names(annotations, taken)
        copy_images(annotations, names, out / "JPEGImages")
        objects: dict[Any, list[dict]] = {image["id"]: [] for image in annotations.images}
        for each in annotations.annotations:
            objects[each["image_id"]].append(each)
        classes = {category["id"]: category["name"] for category in annotations.categories}
        for image, name in zip(annotations.images, names, strict=True):
            path = new_file(out / "Annotations", Path(name).with_suffix(".xml"))
            _tree(image, name, objects[image["id"]], classes).write(path, encoding="utf-8")
        stems = "".join(f"{Path(name).with_suffix('').as_posix()}\n" for name in names)
        new_file(out, f"ImageSets/Main/{split}.txt").write_text(stems, encoding="utf-8")
        classes_text = "".join(f"{name}\n" for name in annotations.class_names)
        new_file(out, "classes.txt").write_text(classes_text, encoding="utf-8")


def _tree(image: dict, name: str, objects: list[dict], classes: Mapping[Any, str]) -> ET.ElementTree:
    """Return the XML of one image."""
    root = ET.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", Path(name).name)
    _add(ET.SubElement(root, "source"), "database", "Unknown")
    size = ET.SubElement(root, "size")
    for key, value in (("width", image["width"]), ("height", image["height"]), ("depth", 3)):
        _add(size, key, value)
    _add(root, "segmented", 0)
    for each in objects:
        node = ET.SubElement(root, "object")
        _add(node, "name", classes[each["category_id"]])
        _add(node, "pose", "Unspecified")
        _add(node, "truncated", 0)
        _add(node, "difficult", int(bool(each.get("iscrowd"))))
        x, y, width, height = each["bbox"]
        box = ET.SubElement(node, "bndbox")
        for key, value in (("xmin", x), ("ymin", y), ("xmax", x + width), ("ymax", y + height)):
            _add(box, key, f"{round(value, DIGITS):.{DIGITS}f}".rstrip("0").rstrip("."))
    ET.indent(root)
    return ET.ElementTree(root)


def _add(node: ET.Element, tag: str, value: object) -> None:
    ET.SubElement(node, tag).text = str(value)
