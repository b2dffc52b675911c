"""Kinds of broken data, each made from a sound data set by one change, with what has to be said of it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = [(60, 40), (40, 60), (50, 50)]
BOXES = [[4, 5, 10, 12], [20, 8, 14, 20]]  # of every image
Change = Callable[[dict[str, Any], Path], object]


@dataclass(frozen=True)
class Case:
    """A change of train.json (its content, and the folder of the data set) and the problem that it makes.

    `says`: parts of the sentence. `count`: cases of the problem. `right`: whether a perfect detector has AP 100 after
    loading (not for what is refused, nor where boxes that training leaves out count in COCO's evaluation).
    """

    name: str
    change: Change
    kind: str
    severity: str
    says: tuple[str, ...] = ()
    count: int = 1
    right: bool = True


def write_data(folder: Path) -> None:
    """Write train.json and val.json with three photos of two boxes each; all photos differ."""
    (folder / "images").mkdir(parents=True)
    for shade, split in enumerate(("train", "val")):
        images, annotations = [], []
        for number, (width, height) in enumerate(SIZES, start=1):
            name = f"{split}_{number}.png"
            pixels = np.full((height, width, 3), 40 * number + 15 * shade, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for k, box in enumerate(BOXES):
                area = box[2] * box[3]
                annotation = {"id": 2 * number + k - 1, "image_id": number, "category_id": 1 + k, "bbox": list(box)}
                annotations.append({**annotation, "area": area, "iscrowd": 0})
        categories = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "screw"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))


def write_broken(folder: Path, change: Change) -> None:
    """Write the data, with train.json changed."""
    write_data(folder)
    content = json.loads((folder / "train.json").read_text())
    change(content, folder)
    (folder / "train.json").write_text(json.dumps(content))


def each(key: str, value: Callable[[dict[str, Any]], Any], table: str = "annotations") -> Change:
    """Return a change of `key` in all entries of a list."""
    return lambda coco, folder: [entry.update({key: value(entry)}) for entry in coco[table]]


def third(**values: object) -> Change:
    """Return a change of annotation 3, of image 2."""
    return lambda coco, folder: coco["annotations"][2].update(values)


def second(table: str, **values: object) -> Change:
    """Return a change of image or category 2."""
    return lambda coco, folder: coco[table][1].update(values)


def without(key: str, table: str = "annotations", row: int = 2) -> Change:
    """Return a change that removes `key` from one entry, of annotation 3 if no other is named."""
    return lambda coco, folder: coco[table][row].pop(key)


def more(table: str, entry: object) -> Change:
    """Return a change that adds an entry to a list."""
    return lambda coco, folder: coco[table].append(entry)


def photo(change: Callable[[Path], object]) -> Change:
    """Return a change of the file of image 2 (40x60)."""
    return lambda coco, folder: change(folder / "images" / "train_2.png")


def cut(path: Path) -> None:
    """Write random pixels to the file, and cut it in the middle."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn(path: Path) -> None:
    """Write a photo of 40x60 stored pixels that is shown as 60x40."""
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (40, 60)).save(path, exif=tag)


def upright(coco: dict[str, Any], folder: Path) -> None:
    """Give image 2 a turned photo whose annotations state the size that is shown, and fit into it."""
    turn(folder / "images" / "train_2.png")
    coco["images"][1].update(width=60, height=40)


def pixels(values: np.ndarray) -> Callable[[Path], None]:
    """Return a change that writes grey levels of another type than 8 bits, as TIFF under the same name."""
    return lambda path: Image.fromarray(values).save(path, format="TIFF")


def twice(coco: dict[str, Any], folder: Path) -> None:
    """Add the photo of image 2 under another name, without objects."""
    shutil.copy(folder / "images" / "train_2.png", folder / "images" / "again.png")
    coco["images"].append({"id": 9, "file_name": "again.png", "width": 40, "height": 60})


def crowded(coco: dict[str, Any], folder: Path) -> None:
    """Give image 1 a hundred more objects."""
    box = {"image_id": 1, "category_id": 1, "area": 16, "iscrowd": 0}
    coco["annotations"] += [{**box, "id": 100 + k, "bbox": [k % 50, k % 30, 4, 4]} for k in range(100)]


def fractions(coco: dict[str, Any], folder: Path) -> None:
    """Write all boxes as fractions of their image."""
    for entry in coco["annotations"]:
        (width, height), (x, y, w, h) = SIZES[entry["image_id"] - 1], entry["bbox"]
        entry["bbox"] = [x / width, y / height, w / width, h / height]
