"""The gallery: boxes of single cases, drawn over crops of their photos where there is a folder of photos."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from align_detr.errors import DatasetError
from align_detr.report.metrics import number

Kind = Literal["object", "best", "confident"]
Box = Sequence[float]  # x, y, width, height in pixels of the image
_ASPECT = 4 / 3  # of every crop
_MARGIN = 0.3  # of the boxes' size, on each side
_LEAST = 48.0  # pixels of the photo in a crop's height
_WIDTH = 400  # pixels of a crop at most
_BYTES = 24_000  # of a crop at most, so that a page with a hundred of them stays below 5 MB
_QUALITIES = (82, 65, 45, 25)


@dataclass(frozen=True)
class Drawn:
    """One box of a case: what it is called and its numbers, none for ground truth."""

    kind: Kind
    box: Box
    name: str = ""
    facts: Sequence[str] = ()


@dataclass
class Case:
    """One card of the gallery: boxes in a window of the image, all in its pixels, the last on top."""

    label: str
    file_name: str
    boxes: list[Drawn]
    heads: Sequence[str]
    """What the facts of the boxes are."""
    note: str
    window: tuple[float, float, float, float] = field(init=False)
    """x, y, width, height of what is shown."""
    photo: Image.Image | None = None
    """The part of the photo in the window."""
    place: tuple[float, float, float, float] | None = None
    """x, y, width, height of the photo's part: the window where it lies inside the image."""

    def __post_init__(self) -> None:
        self.window = _window([drawn.box for drawn in self.boxes])

    @property
    def description(self) -> str:
        """The card in words, for those who see no pictures."""
        facts = [f"{drawn.name} {text}" for drawn in self.listed if (text := ", ".join(self.in_words(drawn)))]
        return "; ".join([f"{self.label} in {self.file_name}, {self.note}", *facts])

    @property
    def listed(self) -> list[Drawn]:
        """The boxes with numbers."""
        return [drawn for drawn in self.boxes if drawn.facts]

    def in_words(self, drawn: Drawn) -> list[str]:
        """Return the numbers of a box with their names."""
        return [f"{head} {fact}" for head, fact in zip(self.heads, drawn.facts, strict=True)]

    def data_uri(self) -> str:
        """Return the photo's part as a JPEG of limited size; "" without a photo."""
        if self.photo is None:
            return ""
        for quality in _QUALITIES:
            file = BytesIO()
            self.photo.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= _BYTES:
                break
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def misaligned_cases(entries: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Return the cases of objects whose best box is not their most confident one."""
    return [
        Case(
            label=entry["class"],
            file_name=entry["file_name"],
            boxes=[
                Drawn("object", entry["object"]),
                Drawn("best", entry["best"]["box"], "best-regressed", _facts(entry["best"])),
                Drawn("confident", entry["confident"]["box"], "most confident", _facts(entry["confident"])),
            ],
            heads=("IoU", "score", "rank"),
            note=f"gap {number(entry['gap'], 2)}",
        )
        for entry in entries
    ]


def duplicate_cases(entries: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Return the cases of objects with several detections, the one with the highest score on top."""
    cases = []
    for entry in entries:
        pairs = sorted(zip(entry["scores"], entry["boxes"], strict=True), key=lambda pair: pair[0])
        found = [
            Drawn("best" if k else "confident", box, f"again ({k})" if k else "first", [number(score, 2)])
            for k, (score, box) in zip(reversed(range(len(pairs))), pairs, strict=True)
        ]
        cases.append(
            Case(
                label=entry["class"],
                file_name=entry["file_name"],
                boxes=[Drawn("object", entry["object"]), *found],
                heads=("score",),
                note=f"{len(found)} detections",
            )
        )
    return cases


def unmatched_cases(entries: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Return the cases of confident detections on no object."""
    return [
        Case(
            label=entry["class"],
            file_name=entry["file_name"],
            boxes=[Drawn("confident", entry["box"])],
            heads=(),
            note=f"score {number(entry['score'], 2)}",
        )
        for entry in entries
    ]


def add_photos(cases: Iterable[Case], folder: Path) -> list[str]:
    """Cut each case's window out of its photo in `folder`; return a sentence on those that could not be read.

    A file is looked for at its name in the annotations, then at the last part of that name. Raise DatasetError if
    `folder` is none or no photo of any case can be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"The folder {folder} of --images does not exist: name the folder of the photos.")
    cases, faults = list(cases), {}
    for case in cases:
        try:
            path = folder / case.file_name
            with Image.open(path if path.is_file() else folder / Path(case.file_name).name) as stored:
                _cut(case, stored)
        except Exception as error:  # Pillow's decoders raise anything
            reason = getattr(error, "strerror", None) or type(error).__name__
            faults[case.file_name] = reason if case.file_name else "its image has no file_name in the annotations"
    if not faults:
        return []
    example = "such as {} ({})".format(*next(((name or "one", why) for name, why in faults.items())))
    if all(case.photo is None for case in cases):
        raise DatasetError(
            f"No photo of the gallery can be read in {folder}, {example}: name the folder that "
            "the file names of the annotations start from."
        )
    photos = "1 photo" if len(faults) == 1 else f"{len(faults)} photos"
    return [f"{photos} could not be read, {example}: their boxes stand alone."]


def _cut(case: Case, stored: Image.Image) -> None:
    """Give a case its part of a photo, of which the boxes count pixels as it is shown."""
    shown = ImageOps.exif_transpose(stored)
    x, y, width, height = _moved_inside(case.window, shown.size)
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(shown.width, round(x + width)), min(shown.height, round(y + height))
    part = shown.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    if part.mode.startswith(("I", "F")):  # more than 8 bits
        levels = np.asarray(part, dtype=np.float32)
        part = Image.fromarray((255 * (levels - levels.min()) / max(np.ptp(levels), 1e-9)).astype(np.uint8))
    part = part.convert("RGB")
    part.thumbnail((_WIDTH, _WIDTH), Image.Resampling.LANCZOS)
    case.window, case.photo = (x, y, width, height), part
    case.place = (left, top, right - left, bottom - top)


def _window(boxes: Sequence[Box]) -> tuple[float, float, float, float]:
    """Return a window of the aspect of all crops around the boxes, with a margin."""
    x0, y0 = (min(box[k] for box in boxes) for k in (0, 1))
    x1, y1 = (max(box[k] + box[k + 2] for box in boxes) for k in (0, 1))
    width, height = (1 + 2 * _MARGIN) * (x1 - x0), (1 + 2 * _MARGIN) * (y1 - y0)
    height = max(height, width / _ASPECT, _LEAST)
    width = _ASPECT * height
    return (x0 + x1 - width) / 2, (y0 + y1 - height) / 2, width, height


def _moved_inside(
    window: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return a window moved into an image of (width, height) as far as it fits, and centred where it is larger."""
    x, y, width, height = window
    x = (size[0] - width) / 2 if width > size[0] else min(max(x, 0), size[0] - width)
    y = (size[1] - height) / 2 if height > size[1] else min(max(y, 0), size[1] - height)
    return x, y, width, height


def _facts(found: Mapping[str, Any]) -> list[str]:
    return [number(found["iou"], 2), number(found["score"], 2), str(found["rank"])]
