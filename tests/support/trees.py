"""Small data sets as files, in the layouts that people and tools write, and what every one of them holds.

Three photos: a.jpg (200x150) with three objects, b.jpg (120x160) without any, c.jpg (300x200) with one. The screw comes
first in the photos and second in the alphabet.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from align_detr.data.annotations import Annotations

SIZES = {"a": (200, 150), "b": (120, 160), "c": (300, 200)}
# photo -> (class, x, y, width, height) in pixels
OBJECTS = {
    "a": [("screw", 20, 30, 40, 50), ("bolt", 100, 40, 80, 90), ("screw", 140, 10, 10, 10)],
    "b": [],
    "c": [("bolt", 10, 20, 30, 40)],
}
Table = dict[str, list[tuple]]


def write_images(folder: Path, names: Sequence[str] = "abc", suffix: str = ".jpg") -> None:
    """Write the photos called `names` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZES[name], (90, 120, 150)).save(folder / f"{name}{suffix}")


def coco(names: Sequence[str] = "abc", *, classes: Sequence[str] = ("screw", "bolt"), prefix: str = "") -> dict:
    """Return the photos' annotations in COCO's form; `prefix` comes before the file names."""
    boxes = [(number, *each) for number, name in enumerate(names, start=1) for each in OBJECTS[name]]
    return {
        "images": [
            {"id": number, "file_name": f"{prefix}{name}.jpg", "width": SIZES[name][0], "height": SIZES[name][1]}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {
                "id": k,
                "image_id": n,
                "category_id": 1 + classes.index(c),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for k, (n, c, *box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }


def write_json(path: Path, content: object) -> None:
    """Write JSON, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo_lines(name: str, classes: Sequence[str] = ("screw", "bolt")) -> str:
    """Return a photo's label file."""
    width, height = SIZES[name]
    return "".join(
        f"{classes.index(c)} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
        for c, x, y, w, h in OBJECTS[name]
    )


def write_labels(folder: Path, names: Sequence[str] = "abc") -> None:
    """Write the photos' YOLO label files into `folder`; that of the photo without objects is empty."""
    for name in names:
        write_text(folder / f"{name}.txt", yolo_lines(name))


def xml(name: str, *, database: str = "Unknown", shift: Sequence[int] = (0, 0, 0, 0), extra: str = "") -> str:
    """Return a photo's XML file; `shift` is added to xmin, ymin, xmax and ymax, `extra` stands in every object."""
    objects = ""
    for label, x, y, w, h in OBJECTS[name]:
        edges = [value + by for value, by in zip((x, y, x + w, y + h), shift, strict=True)]
        box = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
        objects += f"<object><name>{label}</name>{extra}<bndbox>{box}</bndbox></object>"
    width, height = SIZES[name]
    return (
        f"<annotation><folder>x</folder><filename>{name}.jpg</filename><source><database>{database}</database></source>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )


def write_xmls(folder: Path, names: Sequence[str] = "abc", **options) -> None:
    """Write the photos' XML files into `folder`."""
    for name in names:
        write_text(folder / f"{name}.xml", xml(name, **options))


def table(annotations: Annotations, digits: int = 3) -> Table:
    """Return {name of the photo without folder and ending: (class, x, y, width, height), rounded, in order}."""
    classes = {category["id"]: category["name"] for category in annotations.categories}
    photos: Table = {Path(image["file_name"]).stem: [] for image in annotations.images}
    names = {image["id"]: Path(image["file_name"]).stem for image in annotations.images}
    for each in annotations.annotations:
        box = (round(value, digits) for value in each["bbox"])
        photos[names[each["image_id"]]].append((classes[each["category_id"]], *box))
    return photos


def expected(names: Sequence[str] = "abc") -> Mapping[str, list[tuple]]:
    """Return the table of the photos called `names`."""
    return {name: OBJECTS[name] for name in names}


def images_exist(annotations: Annotations) -> bool:
    """Return whether the image folder exists, and every image is a file of the stated size."""
    if not annotations.image_root.is_dir():
        return False
    for image in annotations.images:
        with Image.open(annotations.image_root / image["file_name"]) as photo:
            if photo.size != (image["width"], image["height"]):
                return False
    return True
