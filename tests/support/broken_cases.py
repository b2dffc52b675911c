"""The table of kinds of broken data: what is changed, the kind of problem, parts of the sentence that names it."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from support.broken import (
    Case,
    Change,
    crowded,
    cut,
    each,
    fractions,
    more,
    photo,
    pixels,
    second,
    third,
    turn,
    twice,
    upright,
    without,
)


def case(severity: str, name: str, change: Change, kind: str, *says: str, count: int = 1, right: bool = True) -> Case:
    """Return a row of the table."""
    return Case(name, change, kind, severity, says, count, right)


refused, repaired, noted = (partial(case, severity) for severity in ("error", "repair", "note"))
CORNERS = each("bbox", lambda a: [a["bbox"][0], a["bbox"][1], a["bbox"][0] + 18, a["bbox"][1] + 18])
A3 = "annotation 3 of image 2 (train_2.png)"
I2 = "image 2 (train_2.png)"

CASES = [
    # ids of annotations carry nothing: renumbered
    repaired("ids from 0", each("id", lambda a: a["id"] - 1), "annotation-id-zero", "annotation 0 of image 1"),
    repaired("negative id", third(id=-4), "annotation-id-zero", "annotation -4 of image 2", "takes 0 for no match"),
    repaired("no ids", each("id", lambda a: None), "annotation-id-missing", "renumbered", count=6),
    repaired("a missing id", without("id"), "annotation-id-missing", "of image 2 (train_2.png)"),
    repaired("uuids", each("id", lambda a: f"5f-{a['id']}"), "annotation-id-text", "annotation 5f-1", count=6),
    repaired("id beyond 2^53", third(id=2**53 + 1), "annotation-id-large", f"annotation {2**53 + 1}"),
    repaired("repeated id", third(id=2), "annotation-id-repeated", "annotation 2 of image 2", "renumbered"),
    repaired(
        "annotation listed twice",
        lambda c, f: c["annotations"].append(dict(c["annotations"][2])),
        "annotation-repeated",
        A3,
    ),
    # references
    repaired("image ids as text", each("image_id", lambda a: str(a["image_id"])), "image-reference-text", count=6),
    repaired(
        "class ids as text", each("category_id", lambda a: str(a["category_id"])), "category-reference-text", count=6
    ),
    refused("no image_id", without("image_id"), "image-reference-missing", "annotation 3", "image_id"),
    refused("image not in the file", third(image_id=77), "image-reference-unknown", "annotation 3 of image 77"),
    refused(
        "image ids off by one",
        each("image_id", lambda a: a["image_id"] - 1),
        "image-reference-unknown",
        "image_id 0",
        "add 1 to all",
        count=2,
    ),
    refused("no category_id", without("category_id"), "category-reference-missing", A3, "category_id"),
    refused("class not in the file", third(category_id=7), "category-reference-unknown", A3, "category_id 7"),
    refused("annotation is a number", more("annotations", 5), "annotation-not-an-object", "entry 6"),
    # boxes
    refused("no box", without("bbox"), "box-missing", A3, "bbox"),
    refused("box is null", third(bbox=None), "box-missing", A3),
    refused("three numbers", third(bbox=[1, 2, 3]), "box-malformed", A3, "[1, 2, 3]"),
    refused("words in a box", third(bbox=["a", 2, 3, 4]), "box-malformed", A3),
    repaired("numbers as text", third(bbox=["4", "5", "10", "12"]), "box-text", A3),
    refused("NaN in a box", third(bbox=[1, float("nan"), 3, 4]), "box-not-finite", A3, "not finite"),
    refused("infinity in a box", third(bbox=[1, 2, float("inf"), 4]), "box-not-finite", A3, "inf"),
    refused("negative width", third(bbox=[14, 5, -10, 12]), "box-negative-size", A3, "upper left"),
    noted("no width", third(bbox=[4, 5, 0, 12]), "box-empty", A3, "training leaves it out", right=False),
    noted("box outside", third(bbox=[45, 5, 10, 12]), "box-outside", A3, "40x60", right=False),
    noted("box beyond the edge", third(bbox=[35, 5, 10, 12]), "box-beyond", A3, "40x60", right=False),
    noted("box of a fraction", third(bbox=[0.1, 0.2, 0.3, 0.4]), "box-below-a-pixel", A3, right=False),
    refused("all boxes as fractions", fractions, "box-normalized", "multiply x and width", count=6),
    refused("boxes as corners", CORNERS, "box-corners", "x, y, width, height", count=2),
    # what else an annotation has
    repaired("no area", without("area"), "area-missing", A3, "width x height"),
    repaired("area null", third(area=None), "area-missing", A3, "None"),
    repaired("area 0", each("area", lambda a: 0), "area-missing", "width x height", count=6),
    repaired("area as text", third(area="120"), "area-text", A3),
    repaired("no iscrowd", each("iscrowd", lambda a: None), "iscrowd-missing", "0 is taken", count=6),
    repaired("iscrowd '0'", each("iscrowd", lambda a: "0"), "iscrowd-text", "'0'", count=6),
    repaired("iscrowd false", third(iscrowd=False), "iscrowd-text", A3),
    refused("iscrowd 7", third(iscrowd=7), "iscrowd-unknown", A3, "write 0 or 1"),
    refused("ignored object", third(ignore=1), "ignored", A3, "iscrowd to 1"),
    repaired("flat polygon", third(segmentation=[4, 5, 14, 5, 14, 17]), "polygon-flat", A3),
    repaired("polygon of two points", third(segmentation=[[4, 5, 14, 17]]), "polygon-broken", A3, "box stays"),
    repaired("empty polygon", each("segmentation", lambda a: [[]]), "polygon-broken", "box stays", count=6),
    repaired("text in a polygon", third(segmentation=[[4, 5, 14, 5, 14, "a"]]), "polygon-broken", A3, "box stays"),
    repaired(
        "text in the second polygon",
        third(segmentation=[[4, 5, 14, 5, 14, 17], [4, None, 14, 5, 14, 17]]),
        "polygon-broken",
        A3,
    ),
    repaired("negative run", third(segmentation={"counts": [2410, -10], "size": [60, 40]}), "mask-broken", A3),
    repaired("too few runs", third(segmentation={"counts": [0, 5], "size": [60, 40]}), "mask-broken", A3, "box stays"),
    repaired("huge mask", third(segmentation={"counts": [10**30], "size": [10**15] * 2}), "mask-broken", A3),
    repaired("mask without size", third(segmentation={"counts": "0o"}), "mask-broken", A3),
    repaired("mask of other letters", third(segmentation={"counts": "é", "size": [60, 40]}), "mask-broken", A3),
    repaired("mask cut off", third(segmentation={"counts": "0o", "size": [60, 40]}), "mask-broken", A3),
    repaired("keypoint is a text", third(keypoints=["a"]), "keypoints-broken", A3, "box stays"),
    repaired("keypoints of text", each("keypoints", lambda a: ["1", "2", "2"]), "keypoints-broken", count=6),
    repaired("two numbers per keypoint", third(keypoints=[1, 2, 3, 4]), "keypoints-broken", A3),
    # images
    refused("image is a text", more("images", "a.png"), "image-not-an-object", "entry 3"),
    refused("image without id", without("id", "images", 1), "image-id-missing", "train_2.png"),
    refused(
        "two images of one id", second("images", id=1), "image-id-repeated", "image 1 (train_2.png)", "train_1.png"
    ),
    refused(
        "image id of 64 bits",
        more("images", {"id": 2**70, "file_name": "train_1.png", "width": 60, "height": 40}),
        "image-id-too-large",
        f"image {2**70}",
    ),
    noted(
        "image id beyond 2^53",
        more("images", {"id": 2**53 + 1, "file_name": "train_1.png", "width": 60, "height": 40}),
        "image-id-large",
        "2^53",
    ),
    repaired("image listed twice", lambda c, f: c["images"].append(dict(c["images"][1])), "image-repeated", I2),
    noted(
        "one file, two ids",
        more("images", {"id": 8, "file_name": "train_2.png", "width": 40, "height": 60}),
        "image-file-repeated",
        "image 8",
    ),
    refused("no file name", without("file_name", "images", 1), "image-file-name-missing", "image 2"),
    repaired("size as text", second("images", width="40"), "image-size-text", I2),
    repaired("no size", without("width", "images", 1), "image-size-missing", I2, "image file"),
    repaired("size 0x0", second("images", width=0, height=0), "image-size-missing", I2),
    refused(
        "no size and no file", second("images", file_name="gone.png", width=None), "image-size-unknown", "gone.png"
    ),
    # image files
    refused("photo missing", photo(Path.unlink), "image-missing", I2, "complete the image folder"),
    refused("photo cut off", photo(cut), "image-unreadable", I2, "truncated", "replace the file"),
    refused("photo is a text", photo(lambda path: path.write_text("no photo")), "image-unreadable", I2, "format"),
    refused("photo of other size", photo(Image.new("RGB", (44, 66)).save), "image-other-size", I2, "44x66", "40x60"),
    refused("photo turned, stored size", photo(turn), "image-orientation", I2, "EXIF", "orientation 6"),
    noted("photo turned, shown size", upright, "image-turned", I2, "upright", right=False),
    noted("16-bit photo", photo(pixels(np.full((60, 40), 4000, np.uint16))), "image-16-bit", I2, "to 4000", "4095"),
    refused(
        "float photo", photo(pixels(np.zeros((60, 40), np.float32))), "image-white-unknown", I2, "mode F", "white_level"
    ),
    noted("same photo twice", twice, "photo-twice", "image 9 (again.png)", I2),
    # classes
    refused("class is a text", more("categories", "nut"), "category-not-an-object", "entry 2"),
    refused("class without id", without("id", "categories", 1), "category-id-missing", "screw"),
    refused("class without name", without("name", "categories", 1), "category-name-missing", "category 2"),
    refused(
        "two classes of one id", more("categories", {"id": 2, "name": "nut"}), "category-id-repeated", "nut", "screw"
    ),
    refused(
        "two classes of one name", second("categories", name="bolt"), "category-name-repeated", "category 2 (bolt)"
    ),
    repaired(
        "unused class of the same name",
        more("categories", {"id": 3, "name": "bolt"}),
        "category-name-unused",
        "category 3",
    ),
    repaired("class listed twice", more("categories", {"id": 2, "name": "screw"}), "category-repeated", "category 2"),
    refused("class ids of two types", more("categories", {"id": "x", "name": "nut"}), "category-id-mixed", "nut"),
    refused("class id of 64 bits", more("categories", {"id": 2**70, "name": "nut"}), "category-id-too-large", "nut"),
    noted("class id beyond 2^53", more("categories", {"id": 2**53 + 1, "name": "nut"}), "category-id-large", "nut"),
    noted("class without objects", more("categories", {"id": 3, "name": "nut"}), "category-unused", "nut"),
    # beside a model
    noted(
        "more objects than queries",
        crowded,
        "objects-beyond-queries",
        "image 1",
        "102 objects",
        "100 queries",
        right=False,
    ),
]
