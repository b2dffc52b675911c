"""One label file of YOLO: a class and a box, or a polygon, per line, in fractions of the image."""

import math
from dataclasses import dataclass
from pathlib import Path

from align_detr.data.layouts.text import read_text
from align_detr.errors import DatasetError

_FORM = "a line is `class x_center y_center width height`, or `class` and a polygon, in fractions of the image"
_PIXELS = 2.0  # a coordinate beyond it is no fraction, whatever is cut off at the image's edge


@dataclass(frozen=True)
class YoloObject:
    """An object: class index, box (x, y, width, height) and, where the line has one, polygon, all in pixels."""

    line: int
    label: int
    box: tuple[float, float, float, float]
    polygon: list[float] | None


def read_labels(path: Path, size: tuple[int, int], *, keypoints: bool = False) -> list[YoloObject]:
    """Return the objects of a label file for an image of `size` (width, height).

    A polygon (segmentation, and the four corners of rotated boxes) gets the upright box around it. keypoints: behind
    the box there are key points, which are left out.
    Raise DatasetError for a line that is neither, numbers that are not finite, and coordinates in pixels.
    """
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).splitlines(), start=1)]
    return [_read_line(words, number, path, size, keypoints) for number, words in lines if words]


def is_label_file(path: Path) -> bool:
    """Return whether the file's first line is that of a label file; an empty file says nothing and is none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        words = next((line.split() for line in file if line.strip()), [])
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return len(numbers) >= 5 and numbers[0] >= 0 and numbers[0].is_integer()


def _read_line(words: list[str], number: int, path: Path, size: tuple[int, int], keypoints: bool) -> YoloObject:
    where = f"{path}, line {number},"
    try:
        label, *values = (float(word) for word in words)
    except ValueError as error:
        raise DatasetError(f"{where} is '{' '.join(words)[:80]}', but {_FORM}: correct the line.") from error
    is_box = len(values) == 4 or (keypoints and len(values) > 4)
    if not is_box and (len(values) < 6 or len(values) % 2):
        extra = " (a fifth is a score, which detections have)" if len(values) == 5 else ""
        raise DatasetError(f"{where} has {len(values)} numbers behind the class{extra}, but {_FORM}: correct the line.")
    if not all(map(math.isfinite, (label, *values))):
        raise DatasetError(f"{where} has a number that is not finite: correct or remove the line.")
    if label < 0 or not label.is_integer():
        raise DatasetError(f"{where} has class {words[0]}, but classes count from 0: correct the line.")
    if max(map(abs, values[:4] if is_box else values)) > _PIXELS:
        raise DatasetError(f"{where} has coordinates beyond the image, as if in pixels, but {_FORM}: correct the file.")
    width, height = size
    if is_box:
        x, y, w, h = values[:4]
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        return YoloObject(number, int(label), box, None)
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return YoloObject(number, int(label), box, [value for point in zip(xs, ys, strict=True) for value in point])
