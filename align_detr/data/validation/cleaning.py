"""What `fix` does: entries with errors are left out or converted, what can be repaired is, and all is listed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.data.annotations import Annotations
from align_detr.data.findings import Findings, Problem
from align_detr.data.new_folder import new_folder
from align_detr.data.problems import repair
from align_detr.data.shard_images import join_image
from align_detr.data.values import read_boxes

_ROUNDING = 1e-3  # of a box's end, as a fraction of the image
_ROUNDS = 10  # of leaving out: what one round leaves out can reveal another error


@dataclass(frozen=True)
class Change:
    """What was done about one kind of problem: "removed", "converted" or "repaired".

    `entries`: what each of its cases is called. `objects`: how many annotations went with removed images.
    """

    kind: str
    action: str
    text: str
    entries: Sequence[str]
    objects: int = 0


@dataclass(frozen=True)
class Cleaned:
    """A split without errors, and the way there: `problems` of the given annotations, `changes` that were made.

    `obstacle` is an error that only a person can correct; the annotations still have it.
    """

    annotations: Annotations
    problems: list[Problem]
    changes: list[Change]
    obstacle: Problem | None = None


def clean(annotations: Annotations) -> Cleaned:
    """Return the annotations repaired and without the entries that have errors; the given ones stay as they are.

    Boxes that are fractions of their image, or corners, are converted, and ignored objects become crowd regions.
    """
    changes: list[Change] = []
    repaired, problems = repair(annotations)
    given = problems
    for _ in range(_ROUNDS):
        errors = [problem for problem in problems if problem.severity == "error"]
        if not errors:
            findings = Findings(annotations)
            repairs = (problem for problem in problems if problem.severity == "repair")
            return Cleaned(repaired, given, changes + [_change(findings, problem, "repaired") for problem in repairs])
        obstacle = next((error for error in errors if _needs_a_person(annotations, error)), None)
        if obstacle is not None:
            return Cleaned(annotations, given, changes, obstacle)
        convertible = next((error for error in errors if error.kind in _CONVERTIBLE), None)
        if convertible is not None:  # first, while all boxes show what they are
            annotations, change = _convert(annotations, convertible, repaired.images)
            changes.append(change)
        else:
            annotations, removed = without_errors(annotations, errors)
            changes += removed
        repaired, problems = repair(annotations)
    return Cleaned(annotations, given, changes, errors[0])


def without_errors(annotations: Annotations, errors: Sequence[Problem]) -> tuple[Annotations, list[Change]]:
    """Return the annotations without the images and objects that have these errors, and the changes.

    With an image go its objects, and all images of its id, whose objects cannot be told apart.
    """
    findings = Findings(annotations)
    images: set[int] = set()
    objects: set[int] = set()
    changes = []
    for error in errors:
        of_images = error.table == "images"
        rows, with_them = _with_objects(annotations, error.rows) if of_images else (error.rows, [])
        (images if of_images else objects).update(rows)
        objects.update(with_them)
        changes.append(_change(findings, replace(error, rows=rows), "removed", len(with_them)))
    kept = [row for row in range(len(annotations.annotations)) if row not in objects]
    left = replace(
        annotations,
        images=[image for row, image in enumerate(annotations.images) if row not in images],
        annotations=[annotations.annotations[row] for row in kept],
        where=None if annotations.where is None else [annotations.where[row] for row in kept],
    )
    return left, changes


def write_clean(splits: dict[str, tuple[Annotations, list[Change]]], folder: Path) -> None:
    """Write annotations/instances_<split>.json of each split, changes.json and changes.txt into the new `folder`.

    The image files stay where they are: the copy names them by their full paths. Raise DatasetError for a folder that
    cannot be written.
    """
    with new_folder(folder) as content:
        _write_files(splits, content)


def _write_files(splits: dict[str, tuple[Annotations, list[Change]]], folder: Path) -> None:
    (folder / "annotations").mkdir()
    for name, (annotations, _) in splits.items():
        root = annotations.image_root.absolute()
        coco = {
            "info": {"description": f"cleaned copy of {annotations.source}"},
            "images": [{**image, "file_name": join_image(root, image["file_name"])} for image in annotations.images],
            "annotations": annotations.annotations,
            "categories": annotations.categories,
        }
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(coco), encoding="utf-8")
    listed = {name: [_as_json(change) for change in changes] for name, (_, changes) in splits.items()}
    (folder / "changes.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
    changes = {name: changes for name, (_, changes) in splits.items()}
    (folder / "changes.txt").write_text("\n".join(changes_as_text(changes)) + "\n", encoding="utf-8")


def changes_as_text(changes: dict[str, list[Change]]) -> Iterator[str]:
    """Yield one line per entry that was changed, headed by what was done about its kind."""
    if not any(changes.values()):
        yield "Nothing was changed."
    for name, of_split in changes.items():
        for change in of_split:
            objects = f" with {change.objects} annotations" if change.objects else ""
            yield f"{name}: {len(change.entries)} {change.action}{objects} ({change.kind}): {change.text}"
            yield from (f"    {entry}" for entry in change.entries)


def _as_json(change: Change) -> dict[str, Any]:
    return {**vars(change), "count": len(change.entries), "entries": list(change.entries)}


def _change(findings: Findings, problem: Problem, action: str, objects: int = 0) -> Change:
    entries = [findings.describe(problem.table, row).rstrip(",") for row in problem.rows] or [problem.where]
    return Change(problem.kind, action, f"the first {problem.text}", entries, objects)


def _with_objects(annotations: Annotations, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the rows of these images and of all others with their ids, and the rows of their annotations."""
    ids = {_id_of(annotations.images[row], "id") for row in rows} - {None}
    images = {*rows, *(row for row, image in enumerate(annotations.images) if _id_of(image, "id") in ids)}
    objects = [row for row, annotation in enumerate(annotations.annotations) if _id_of(annotation, "image_id") in ids]
    return sorted(images), objects


def _id_of(entry: object, key: str) -> str | None:
    """Return an id as text, since "7" and 7 mean the same image."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return None if value is None else str(value)


def _needs_a_person(annotations: Annotations, error: Problem) -> bool:
    """Return whether leaving out, or converting, the entries of this error would be a guess."""
    if error.kind == "box-normalized":  # a box that ends beyond 1 has its centre as x and y
        boxes = read_boxes([annotations.annotations[row]["bbox"] for row in error.rows])[0]
        return bool((boxes[:, :2] + boxes[:, 2:] > 1 + _ROUNDING).any())
    return error.table == "categories" or not len(error.rows)


def _convert(annotations: Annotations, error: Problem, images: Sequence[dict[str, Any]]) -> tuple[Annotations, Change]:
    """Return the annotations with boxes in pixels, or ignored objects as crowd regions, and the change.

    images: the repaired ones. If a file has corners, all its boxes are corners. What cannot be read stays as it is.
    """
    changed = list(annotations.annotations)
    boxes = read_boxes([annotation.get("bbox") for annotation in changed])[0].tolist()
    sizes = {_id_of(image, "id"): (image["width"], image["height"]) for image in images}
    rows = range(len(changed)) if error.kind == "box-corners" else error.rows
    rows = [row for row in rows if error.kind == "ignored" or _id_of(changed[row], "image_id") in sizes]
    for row in rows:
        if error.kind == "ignored":
            changed[row] = {**changed[row], "ignore": 0, "iscrowd": 1}
        elif np.isfinite(boxes[row]).all():
            box = _CONVERSIONS[error.kind](boxes[row], *sizes[_id_of(changed[row], "image_id")])
            changed[row] = {**changed[row], "bbox": box, "area": box[2] * box[3]}
    change = _change(Findings(annotations), replace(error, rows=rows), "converted")
    return replace(annotations, annotations=changed), change


_CONVERSIONS = {
    "box-normalized": lambda box, width, height: [box[0] * width, box[1] * height, box[2] * width, box[3] * height],
    "box-corners": lambda box, width, height: [box[0], box[1], box[2] - box[0], box[3] - box[1]],
}
_CONVERTIBLE = {*_CONVERSIONS, "ignored"}
