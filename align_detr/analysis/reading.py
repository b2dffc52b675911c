"""COCO's files of ground truth and of results, read into columns; one sentence for what is wrong with them."""

import json
import sys
from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.analysis.tables import Detections, Floats, ImageId, Truth, make_objects, sort_detections
from align_detr.errors import DatasetError

_Entries = Sequence[Any]
_LARGEST = sys.float_info.max


def read_truth(path: str | Path) -> Truth:
    """Read an annotation file in COCO's format.

    An object without `area` has that of its box; ids of annotations are not read. Raise DatasetError for a file that
    cannot be used.
    """
    content = _load(Path(path), _without_masks)
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise DatasetError(
            f"{path} is no COCO annotation file: it must be an object with the keys images, annotations and categories."
        )
    annotations = content.get("annotations", [])
    images, categories = (_with_ids(content[kind], path, kind) for kind in ("images", "categories"))
    _require_entries(annotations, path, "annotations")
    image_index = {identity: index for index, identity in enumerate(images)}
    class_index = {identity: index for index, identity in enumerate(categories)}
    box = _numbers([a.get("bbox") for a in annotations], path, "annotation", "bbox", 4)
    area = [box[k, 2] * box[k, 3] if a.get("area") is None else a["area"] for k, a in enumerate(annotations)]
    return Truth(
        image_ids=list(images),
        file_names=[str(image.get("file_name", "")) for image in images.values()],
        category_ids=list(categories),
        class_names=[str(category.get("name", identity)) for identity, category in categories.items()],
        objects=make_objects(
            image=_indices(annotations, "image_id", image_index, path, "annotation"),
            label=_indices(annotations, "category_id", class_index, path, "annotation"),
            box=box,
            area=_numbers([[value] for value in area], path, "annotation", "area", 1)[:, 0],
            crowd=_flags(annotations, "iscrowd", path),
        ),
    )


def read_results(path: str | Path, truth: Truth) -> Detections:
    """Read a results file in COCO's format: a list of image_id, category_id, bbox (x, y, width, height) and score.

    A file of 1.5 million detections takes some seconds, and twice its size in memory. Raise DatasetError, with the
    number of the entry, for a file that cannot be used with this ground truth.
    """
    columns = _Columns(truth)
    try:
        whole = columns.hold(_load(Path(path), columns.add))
    except (KeyError, TypeError, OverflowError, DatasetError):
        whole = False
    if not whole:
        _refuse(_load(Path(path)), path, truth)
    box, score = np.asarray(columns.box).reshape(-1, 4), np.asarray(columns.score)
    wrong = np.flatnonzero(~np.isfinite(box).all(axis=1) | ~((score >= 0) & (score <= 1)))
    if len(wrong):
        number = int(wrong[0])
        _check_values(box[number].tolist(), float(score[number]), path, number)
    return sort_detections(columns.image, columns.label, score, box)


class _Columns:
    """Columns that take a detection as soon as it is parsed, so that the parsed file is never whole in memory."""

    def __init__(self, truth: Truth) -> None:
        self._image_index = {identity: index for index, identity in enumerate(truth.image_ids)}
        self._class_index = {identity: index for index, identity in enumerate(truth.category_ids)}
        self.image, self.label = array("q"), array("q")
        self.box, self.score = array("d"), array("d")

    def add(self, entry: dict[str, Any]) -> Any:
        """Return the number of a detection, from 0, and keep it; return what else a file has (masks) as it is.

        Raise KeyError, TypeError, ValueError or OverflowError for what cannot be kept.
        """
        if "image_id" not in entry:
            return entry
        number, box, score = len(self.score), entry["bbox"], entry["score"]
        if len(box) != 4:
            raise ValueError
        if isinstance(score, bool) or bool in map(type, box):
            raise TypeError
        self.image.append(self._image_index[entry["image_id"]])
        self.label.append(self._class_index[entry["category_id"]])
        self.score.append(score)
        self.box.extend(box)
        return number

    def hold(self, content: Any) -> bool:
        """Return whether the parsed file is the list of all that was added, and nothing else."""
        return isinstance(content, list) and content == list(range(len(self.score)))


def _refuse(content: Any, path: str | Path, truth: Truth) -> None:
    """Raise DatasetError with the number of the first entry of a results file that cannot be used, and the reason."""
    if not isinstance(content, list):
        raise DatasetError(f"{path} is no COCO results file: it must be a list of detections.")
    _require_entries(content, path, "entries")
    for key, ids in {"image_id": truth.image_ids, "category_id": truth.category_ids}.items():
        _indices(content, key, {identity: index for index, identity in enumerate(ids)}, path, "entry")
    for number, entry in enumerate(content):
        _check_values(entry.get("bbox"), entry.get("score"), path, number)
    raise DatasetError(f"{path} is no COCO results file: an entry holds another, so that they cannot be told apart.")


def _check_values(box: Any, score: Any, path: str | Path, number: int) -> None:
    """Raise DatasetError for a detection whose box or score cannot be used."""
    _numbers([box], path, "entry", "bbox", 4, number)
    _numbers([[score]], path, "entry", "score", 1, number)
    if not 0 <= score <= 1:
        raise DatasetError(
            f"{path}: entry {number} (from 0) has score {score!r}, but scores must lie in [0, 1]: write probabilities."
        )


def _load(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): name a file.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no JSON file ({error}): write it again.") from error
    try:
        return json.loads(text, object_hook=hook)
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON file ({error}): write it again.") from error
    except RecursionError as error:
        raise DatasetError(f"{path} is no COCO file: its lists are nested too deeply.") from error


def _without_masks(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _require_entries(entries: Any, path: str | Path, kind: str) -> None:
    """Raise DatasetError unless `entries` is a list of objects."""
    if not isinstance(entries, list):
        raise DatasetError(f"{path}: {kind} must be a list, but is {_short(entries)}: correct it.")
    number = next((k for k, entry in enumerate(entries) if not isinstance(entry, dict)), None)
    if number is not None:
        raise DatasetError(
            f"{path}: {number} (from 0) of the {kind} is {_short(entries[number])}, but must be an object with keys: "
            "correct it."
        )


def _with_ids(entries: Any, path: str | Path, kind: str) -> dict[Any, Mapping[str, Any]]:
    """Return id -> entry, sorted. Raise DatasetError for ids that are missing or repeat, and if there is no entry."""
    _require_entries(entries, path, kind)
    if not entries:
        raise DatasetError(f"{path} has no {kind}: take another file.")
    found: dict[ImageId, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries):
        identity = entry.get("id")
        if not isinstance(identity, int | str):
            raise DatasetError(
                f"{path}: {number} (from 0) of the {kind} has the id {_short(identity)}, but must have a whole number "
                "or text: correct it."
            )
        if identity in found:
            raise DatasetError(f"{path}: two of the {kind} have the id {identity!r}: give each another id.")
        found[identity] = entry
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _indices(entries: _Entries, key: str, index: Mapping[Any, int], path: str | Path, kind: str) -> "array[int]":
    """Return the index that each entry's `key` names."""
    try:
        return array("q", [index[entry[key]] for entry in entries])
    except (KeyError, TypeError):
        number = next(k for k, entry in enumerate(entries) if not _is_known(entry.get(key), index))
    if key not in entries[number]:
        raise DatasetError(f"{path}: {kind} {number} (from 0) has no {key}: add it.")
    raise DatasetError(
        f"{path}: {kind} {number} (from 0) has {key} {_short(entries[number][key])}, which is not in the ground truth: "
        "use its ids."
    )


def _is_known(identity: Any, index: Mapping[Any, int]) -> bool:
    return isinstance(identity, Hashable) and identity in index


def _numbers(rows: _Entries, path: str | Path, kind: str, key: str, width: int, first: int = 0) -> Floats:
    """Return rows of `width` finite numbers, (n, width). Raise DatasetError for the first entry without."""
    number = next((k for k, row in enumerate(rows) if not _are_numbers(row, width)), None)
    if number is None:
        return np.array(array("d", chain.from_iterable(rows))).reshape(-1, width)
    given = rows[number][0] if width == 1 else rows[number]
    has = f"no {key}" if given is None else f"{key} {_short(given)}"
    wanted = "a finite number" if width == 1 else f"{width} finite numbers"
    raise DatasetError(f"{path}: {kind} {first + number} (from 0) has {has}, but must have {wanted}: correct it.")


def _are_numbers(row: Any, width: int) -> bool:
    return isinstance(row, list) and len(row) == width and all(_is_number(value) for value in row)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _flags(entries: _Entries, key: str, path: str | Path) -> list[bool]:
    """Return whether `key` is 1 in each entry; an entry without it has 0."""
    values = [entry.get(key) or 0 for entry in entries]
    number = next((k for k, value in enumerate(values) if value not in (0, 1)), None)
    if number is not None:
        raise DatasetError(
            f"{path}: annotation {number} (from 0) has {key} {_short(values[number])}, but must have 0 or 1: "
            "correct it."
        )
    return [bool(value) for value in values]


def _short(value: Any) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
