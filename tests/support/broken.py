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


def copy_photo(source: str, target: str) -> Change:
    """Return a change that copies a photo over another of the same size."""
    return lambda coco, folder: shutil.copy(folder / "images" / source, folder / "images" / target)


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


CORNERS = each("bbox", lambda a: [a["bbox"][0], a["bbox"][1], a["bbox"][0] + 28, a["bbox"][1] + 27])
A3 = "annotation 3 of image 2 (train_2.png)"
I2 = "image 2 (train_2.png)"

CASES = [
    # ids of annotations carry nothing: renumbered
    Case("ids from 0", each("id", lambda a: a["id"] - 1), "annotation-id-zero", "repair", ("annotation 0 of image 1",)),
    Case(
        "negative id",
        third(id=-4),
        "annotation-id-zero",
        "repair",
        ("annotation -4 of image 2", "takes 0 for no match"),
    ),
    Case("no ids", each("id", lambda a: None), "annotation-id-missing", "repair", ("renumbered",), 6),
    Case("a missing id", without("id"), "annotation-id-missing", "repair", ("of image 2 (train_2.png)",)),
    Case("uuids", each("id", lambda a: f"5f-{a['id']}"), "annotation-id-text", "repair", ("annotation 5f-1",), 6),
    Case("id beyond 2^53", third(id=2**53 + 1), "annotation-id-large", "repair", (f"annotation {2**53 + 1}",)),
    Case("repeated id", third(id=2), "annotation-id-repeated", "repair", ("annotation 2 of image 2", "renumbered")),
    # references
    Case("image ids as text", each("image_id", lambda a: str(a["image_id"])), "image-reference-text", "repair", (), 6),
    Case(
        "class ids as text",
        each("category_id", lambda a: str(a["category_id"])),
        "category-reference-text",
        "repair",
        (),
        6,
    ),
    Case("no image_id", without("image_id"), "image-reference-missing", "error", ("annotation 3", "image_id")),
    Case(
        "image not in the file", third(image_id=77), "image-reference-unknown", "error", ("annotation 3 of image 77",)
    ),
    Case(
        "image ids off by one",
        each("image_id", lambda a: a["image_id"] - 1),
        "image-reference-unknown",
        "error",
        ("image_id 0", "add 1 to all"),
        2,
    ),
    Case("no category_id", without("category_id"), "category-reference-missing", "error", (A3, "category_id")),
    Case("class not in the file", third(category_id=7), "category-reference-unknown", "error", (A3, "category_id 7")),
    Case("annotation is a number", more("annotations", 5), "annotation-not-an-object", "error", ("entry 6",)),
    # boxes
    Case("no box", without("bbox"), "box-missing", "error", (A3, "bbox")),
    Case("box is null", third(bbox=None), "box-missing", "error", (A3,)),
    Case("three numbers", third(bbox=[1, 2, 3]), "box-malformed", "error", (A3, "[1, 2, 3]")),
    Case("words in a box", third(bbox=["a", 2, 3, 4]), "box-malformed", "error", (A3,)),
    Case("numbers as text", third(bbox=["4", "5", "10", "12"]), "box-text", "repair", (A3,)),
    Case("NaN in a box", third(bbox=[1, float("nan"), 3, 4]), "box-not-finite", "error", (A3, "not finite")),
    Case("infinity in a box", third(bbox=[1, 2, float("inf"), 4]), "box-not-finite", "error", (A3, "inf")),
    Case("negative width", third(bbox=[14, 5, -10, 12]), "box-negative-size", "error", (A3, "upper left")),
    Case("no width", third(bbox=[4, 5, 0, 12]), "box-empty", "note", (A3, "training leaves it out"), right=False),
    Case("box outside", third(bbox=[45, 5, 10, 12]), "box-outside", "note", (A3, "40x60"), right=False),
    Case("box beyond the edge", third(bbox=[35, 5, 10, 12]), "box-beyond", "note", (A3, "40x60"), right=False),
    Case("box of a fraction", third(bbox=[0.1, 0.2, 0.3, 0.4]), "box-below-a-pixel", "note", (A3,), right=False),
    Case("all boxes as fractions", fractions, "box-normalized", "error", ("multiply x and width",), 6),
    Case("boxes as corners", CORNERS, "box-corners", "error", ("x, y, width, height",), 4),
    # what else an annotation has
    Case("no area", without("area"), "area-missing", "repair", (A3, "width x height")),
    Case("area null", third(area=None), "area-missing", "repair", (A3, "None")),
    Case("area 0", each("area", lambda a: 0), "area-missing", "repair", ("width x height",), 6),
    Case("area as text", third(area="120"), "area-text", "repair", (A3,)),
    Case("no iscrowd", each("iscrowd", lambda a: None), "iscrowd-missing", "repair", ("0 is taken",), 6),
    Case("iscrowd '0'", each("iscrowd", lambda a: "0"), "iscrowd-text", "repair", ("'0'",), 6),
    Case("iscrowd false", third(iscrowd=False), "iscrowd-text", "repair", (A3,)),
    Case("iscrowd 7", third(iscrowd=7), "iscrowd-unknown", "error", (A3, "write 0 or 1")),
    Case("ignored object", third(ignore=1), "ignored", "error", (A3, "iscrowd to 1")),
    Case("flat polygon", third(segmentation=[4, 5, 14, 5, 14, 17]), "polygon-flat", "repair", (A3,)),
    Case("polygon of two points", third(segmentation=[[4, 5, 14, 17]]), "polygon-broken", "repair", (A3, "box stays")),
    Case("empty polygon", each("segmentation", lambda a: [[]]), "polygon-broken", "repair", ("box stays",), 6),
    # images
    Case("image is a text", more("images", "a.png"), "image-not-an-object", "error", ("entry 3",)),
    Case("image without id", without("id", "images", 1), "image-id-missing", "error", ("train_2.png",)),
    Case(
        "two images of one id",
        second("images", id=1),
        "image-id-repeated",
        "error",
        ("image 1 (train_2.png)", "train_1.png"),
    ),
    Case(
        "image id of 64 bits",
        more("images", {"id": 2**70, "file_name": "train_1.png", "width": 60, "height": 40}),
        "image-id-too-large",
        "error",
        (f"image {2**70}",),
    ),
    Case(
        "image id beyond 2^53",
        more("images", {"id": 2**53 + 1, "file_name": "val_1.png", "width": 60, "height": 40}),
        "image-id-large",
        "note",
        ("2^53",),
    ),
    Case(
        "image listed twice", lambda c, f: c["images"].append(dict(c["images"][1])), "image-repeated", "repair", (I2,)
    ),
    Case(
        "one file, two ids",
        more("images", {"id": 8, "file_name": "train_2.png", "width": 40, "height": 60}),
        "image-file-repeated",
        "note",
        ("image 8",),
    ),
    Case("no file name", without("file_name", "images", 1), "image-file-name-missing", "error", ("image 2",)),
    Case("size as text", second("images", width="40"), "image-size-text", "repair", (I2,)),
    Case("no size", without("width", "images", 1), "image-size-missing", "repair", (I2, "image file")),
    Case("size 0x0", second("images", width=0, height=0), "image-size-missing", "repair", (I2,)),
    Case(
        "no size and no file",
        second("images", file_name="gone.png", width=None),
        "image-size-unknown",
        "error",
        ("gone.png",),
    ),
    # image files
    Case("photo missing", photo(Path.unlink), "image-missing", "error", (I2, "complete the image folder")),
    Case("photo cut off", photo(cut), "image-unreadable", "error", (I2, "truncated", "replace the file")),
    Case(
        "photo is a text", photo(lambda path: path.write_text("no photo")), "image-unreadable", "error", (I2, "format")
    ),
    Case(
        "photo of other size",
        photo(Image.new("RGB", (44, 66)).save),
        "image-other-size",
        "error",
        (I2, "44x66", "40x60"),
    ),
    Case("photo turned, stored size", photo(turn), "image-orientation", "error", (I2, "EXIF", "orientation 6")),
    Case("photo turned, shown size", upright, "image-turned", "note", (I2, "upright"), right=False),
    Case("16-bit photo", photo(pixels(np.zeros((60, 40), np.uint16))), "image-depth", "note", (I2, "I;16")),
    Case("float photo", photo(pixels(np.zeros((60, 40), np.float32))), "image-depth", "note", (I2, "mode F")),
    Case("same photo twice", twice, "photo-twice", "note", ("image 9 (again.png)", I2)),
    # classes
    Case("class is a text", more("categories", "nut"), "category-not-an-object", "error", ("entry 2",)),
    Case("class without id", without("id", "categories", 1), "category-id-missing", "error", ("screw",)),
    Case("class without name", without("name", "categories", 1), "category-name-missing", "error", ("category 2",)),
    Case(
        "two classes of one id",
        more("categories", {"id": 2, "name": "nut"}),
        "category-id-repeated",
        "error",
        ("nut", "screw"),
    ),
    Case(
        "two classes of one name",
        second("categories", name="bolt"),
        "category-name-repeated",
        "error",
        ("category 2 (bolt)",),
    ),
    Case(
        "unused class of the same name",
        more("categories", {"id": 3, "name": "bolt"}),
        "category-name-unused",
        "repair",
        ("category 3",),
    ),
    Case(
        "class listed twice",
        more("categories", {"id": 2, "name": "screw"}),
        "category-repeated",
        "repair",
        ("category 2",),
    ),
    Case(
        "class ids of two types", more("categories", {"id": "x", "name": "nut"}), "category-id-mixed", "error", ("nut",)
    ),
    Case(
        "class id of 64 bits",
        more("categories", {"id": 2**70, "name": "nut"}),
        "category-id-too-large",
        "error",
        ("nut",),
    ),
    Case("class without objects", more("categories", {"id": 3, "name": "nut"}), "category-unused", "note", ("nut",)),
    # beside a model
    Case(
        "more objects than queries",
        crowded,
        "objects-beyond-queries",
        "note",
        ("image 1", "102 objects", "100 queries"),
        right=False,
    ),
]
