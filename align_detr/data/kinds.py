"""The kinds of problems that annotations have, with what is done about each: one table."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "repair", "note"]
Table = Literal["images", "annotations", "categories"]


@dataclass(frozen=True)
class Kind:
    """How a kind of problem is treated ("error": refused, "repair": repaired and counted, "note": counted), the list it
    is in, and what completes its sentence; {names} in braces are values of the first case.
    """

    severity: Severity
    table: Table
    text: str
    remedy: str


_RENUMBERED = "the annotations are renumbered, since their ids carry nothing"
_ALL_CLASSES = "all classes count from the file's categories"

KINDS = {
    # images
    "image-none": Kind("error", "images", "has no images", 'check its "images"'),
    "image-not-an-object": Kind("error", "images", "is no JSON object", "remove or correct it"),
    "image-id-missing": Kind(
        "error", "images", "has no id that is a whole number or a text", "give it the image_id of its annotations"
    ),
    "image-id-repeated": Kind(
        "error",
        "images",
        "has the same id as {other}, so that their boxes cannot be told apart",
        "give each image its own id, and correct the image_id of the annotations",
    ),
    "image-id-too-large": Kind(
        "error", "images", "has an id of more than 63 bits, which COCO's evaluation rounds", "use smaller ids or text"
    ),
    "image-id-large": Kind(
        "note",
        "images",
        "has an id beyond 2^53, which is exact here and rounded by tools that hold numbers as floats",
        "use smaller ids if other tools read the results",
    ),
    "image-repeated": Kind(
        "repair", "images", "is listed more than once with the same id and file", "the repetition is left out"
    ),
    "image-file-name-missing": Kind("error", "images", "has no file_name", "add it"),
    "image-file-name-backslash": Kind(
        "repair", "images", "has a file_name with backslashes", "they are read as slashes, which find the file"
    ),
    "image-file-repeated": Kind(
        "note",
        "images",
        "is listed more than once under several ids, each with boxes of its own",
        "merge the entries if the boxes of one are missing from the other",
    ),
    "image-size-text": Kind(
        "repair", "images", "has its width and height as text or floats", "they are read as whole numbers"
    ),
    "image-size-missing": Kind(
        "repair", "images", "has the width and height {value}", "they are taken from the image file"
    ),
    "image-size-unknown": Kind(
        "error",
        "images",
        "has the width and height {value}, and its file cannot be read for them",
        "add them, or complete the image folder {folder}",
    ),
    # categories
    "category-none": Kind("error", "categories", "has no categories", 'check its "categories"'),
    "category-not-an-object": Kind("error", "categories", "is no JSON object", "remove or correct it"),
    "category-id-missing": Kind(
        "error",
        "categories",
        "has no id that is a whole number or a text",
        "give it the category_id of its annotations",
    ),
    "category-id-mixed": Kind(
        "error", "categories", "has an id of text beside ids of numbers", "write all as numbers, as their order counts"
    ),
    "category-id-repeated": Kind(
        "error",
        "categories",
        "has the same id as {other}",
        "give each category its own id, and correct the category_id of the annotations",
    ),
    "category-id-too-large": Kind("error", "categories", "has an id of more than 63 bits", "use smaller ids"),
    "category-id-large": Kind(
        "note", "categories", "has an id beyond 2^53, which other tools may round", "use smaller ids"
    ),
    "category-repeated": Kind(
        "repair", "categories", "is listed more than once with the same name", "the repetition is left out"
    ),
    "category-name-missing": Kind("error", "categories", "has no name", "add it"),
    "category-name-repeated": Kind(
        "error",
        "categories",
        "has the same name as category {other}, and both have annotations",
        "rename one of them, or give the annotations of one the id of the other and remove it",
    ),
    "category-name-unused": Kind(
        "repair", "categories", "has no annotations and the name of another category", "it is left out"
    ),
    "category-unused": Kind(
        "note", "categories", "has no box", "add annotations, or remove the class if no other split has it"
    ),
    # annotations: ids and references
    "annotation-not-an-object": Kind("error", "annotations", "is no JSON object", "remove or correct it"),
    "annotation-id-missing": Kind("repair", "annotations", "has no id", _RENUMBERED),
    "annotation-id-text": Kind("repair", "annotations", "has the id {value}, which is no whole number", _RENUMBERED),
    "annotation-id-zero": Kind(
        "repair", "annotations", "has the id {value}, and COCO's evaluation takes 0 for no match", _RENUMBERED
    ),
    "annotation-id-large": Kind("repair", "annotations", "has an id beyond 2^53", _RENUMBERED),
    "annotation-repeated": Kind(
        "repair", "annotations", "is listed more than once, equal in everything", "the repetition is left out"
    ),
    "annotation-id-repeated": Kind("repair", "annotations", "has the id of another annotation", _RENUMBERED),
    "image-reference-missing": Kind("error", "annotations", "has no image_id", "add it, or remove the annotation"),
    "image-reference-unknown": Kind(
        "error",
        "annotations",
        "has image_id {value}, which is not among the file's images",
        "{hint}add the image or remove the annotation",
    ),
    "image-reference-text": Kind(
        "repair", "annotations", "has its image_id in another type than the image's id", "the image's id is taken"
    ),
    "category-reference-missing": Kind(
        "error", "annotations", "has no category_id", "add it, or remove the annotation"
    ),
    "category-reference-unknown": Kind(
        "error",
        "annotations",
        "has category_id {value}, which is not among the file's categories, {known}",
        "{hint}correct it or add the category",
    ),
    "category-reference-text": Kind(
        "repair", "annotations", "has its category_id in another type than the category's id", _ALL_CLASSES
    ),
    # annotations: boxes
    "box-missing": Kind("error", "annotations", "has no box", "add its bbox (x, y, width, height), or remove it"),
    "box-malformed": Kind(
        "error", "annotations", "has the box {value}, which is no box of four numbers", "correct or remove it"
    ),
    "box-text": Kind("repair", "annotations", "has the box {value} as text", "it is read as numbers"),
    "box-not-finite": Kind("error", "annotations", "has the box {value}, which is not finite", "correct or remove it"),
    "box-negative-size": Kind(
        "error",
        "annotations",
        "has the box {value} of negative width or height",
        "write it as x, y of the upper left corner, width, height, or remove it",
    ),
    "box-empty": Kind(
        "note", "annotations", "has the box {value} without width or height", "training leaves it out; remove it"
    ),
    "box-outside": Kind(
        "note",
        "annotations",
        "has the box {value} outside of its image of {size} pixels",
        "training leaves it out; correct or remove it",
    ),
    "box-beyond": Kind(
        "note",
        "annotations",
        "has the box {value} that reaches beyond its image of {size} pixels",
        "training cuts it at the image; correct it if it is wrong",
    ),
    "box-corners": Kind(
        "error",
        "annotations",
        "has the box {value} in an image of {size} pixels, and all boxes of the file read like corners",
        "write boxes as x, y, width, height instead of x0, y0, x1, y1",
    ),
    "box-normalized": Kind(
        "error",
        "annotations",
        "has the box {value} in an image of {size} pixels, and most boxes of the file read like fractions of the image",
        "multiply x and width by the image's width, y and height by its height",
    ),
    "box-below-a-pixel": Kind(
        "note",
        "annotations",
        "has the box {value} of at most a pixel in the upper left corner",
        "correct it if it is a fraction of the image",
    ),
    # annotations: what else they hold
    "area-missing": Kind("repair", "annotations", "has the area {value}", "width x height is taken"),
    "area-text": Kind("repair", "annotations", "has the area {value} as text", "it is read as a number"),
    "iscrowd-missing": Kind("repair", "annotations", "has no iscrowd", "0 is taken"),
    "iscrowd-text": Kind("repair", "annotations", "has iscrowd {value}", "it is read as 0 or 1"),
    "iscrowd-unknown": Kind("error", "annotations", "has iscrowd {value}", "write 0 or 1"),
    "ignored": Kind(
        "error",
        "annotations",
        "has ignore {value}, which neither training nor COCO's evaluation knows",
        "set iscrowd to 1 so that neither counts it, or remove it",
    ),
    "polygon-flat": Kind("repair", "annotations", "has its polygon as a flat list", "it is read as one polygon"),
    "polygon-broken": Kind(
        "repair",
        "annotations",
        "has a segmentation with a part that is no polygon of three points",
        "that part is left out, and the box stays",
    ),
    "mask-broken": Kind(
        "repair",
        "annotations",
        "has a run-length encoding (counts, size) that cannot be read or has not as many pixels as its size",
        "it is left out, and the box stays",
    ),
    "keypoints-broken": Kind(
        "repair",
        "annotations",
        "has keypoints that are no numbers in threes (x, y, visibility)",
        "they are left out, and the box stays",
    ),
}
