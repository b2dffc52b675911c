"""Records of a COCO file's boxes: read in seconds, kept for the next start, shared by processes."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.coco import as_annotations, collection_paused, parse_json, read_coco
from align_detr.data.coco_boxes import parse_boxes
from align_detr.data.lazy_records import Records
from align_detr.data.problems import check_sound
from align_detr.data.record_columns import to_columns
from align_detr.data.records_cache import cached_columns
from align_detr.data.records_file import Checked
from align_detr.data.register import load_records, set_classes
from align_detr.data.split_boxes import SplitBoxes
from align_detr.errors import DatasetError

_OF_IMAGE_FILES = {"image-size-missing", "image-size-unknown", "image-file-name-backslash"}
"""Kinds of problems that depend on the image folder."""

logger = logging.getLogger(__name__)


def load_box_records(name: str, json_file: Path, image_root: Path) -> Sequence[dict[str, Any]]:
    """Return the records of a COCO file without segmentations and keypoints, and set the classes of data set `name`.

    What is repaired or doubtful is logged at every start. Raise DatasetError for a file that cannot be read, and for
    annotations that cannot be used.
    """
    parse = partial(_parse, path=json_file, image_root=image_root)
    try:
        with collection_paused():
            checked = cached_columns(json_file, parse, _check)
    except OSError:
        checked = None  # `read_coco` says it
    if checked is None:
        return load_records(name, read_coco(json_file, image_root))
    for sentence in checked.warnings:
        logger.warning("In %s, %s", json_file, sentence)
    set_classes(name, checked.columns.categories, json_file)
    return Records(checked.columns, str(image_root))


def read_split_boxes(json_file: Path, locate: Callable[[Annotations], Annotations]) -> SplitBoxes | None:
    """Return the boxes of a COCO file whose images `locate` finds; None where the whole file has to be read.

    That is so where the columns cannot hold the file's values, or images have other names than in the file; a file
    that cannot be used is one more, as `read_coco` and its checks tell.
    """
    found: list[Path] = []

    def parse(content: bytes) -> Annotations:
        annotations = _parse(content, json_file, json_file.parent)
        located = locate(annotations)
        if located.images is not annotations.images:
            raise _RenamedImages
        found.append(located.image_root)
        return located

    try:
        with collection_paused():
            checked = cached_columns(json_file, parse, _check)
    except (OSError, DatasetError, _RenamedImages):
        return None
    if checked is None:
        return None
    if not found:  # kept from an earlier start: the file's names, with which every image has to be found again
        images = [{"file_name": name} for name in SplitBoxes(checked.columns, Path(), json_file).file_names()]
        located = locate(Annotations(images, [], [], json_file.parent, json_file))
        if located.images is not images:
            return None
        found.append(located.image_root)
    return SplitBoxes(checked.columns, found[0], json_file, checked.warnings)


class _RenamedImages(Exception):
    """Images that were found under other names than those in the file."""


def _parse(content: bytes, path: Path, image_root: Path) -> Annotations:
    """Return the annotations in the content of a COCO file."""
    fast = parse_boxes(content, path, image_root)
    return as_annotations(parse_json(content, path), path, image_root) if fast is None else fast


def _check(annotations: Annotations) -> tuple[Checked | None, bool]:
    """Return checked columns, None where columns cannot hold the values, and whether they hold for any image folder."""
    sound, problems = check_sound(annotations)
    columns = to_columns(sound)
    sentences = [problem.sentence.removeprefix(f"In {annotations.source}, ") for problem in problems]
    apart = all(p.kind not in _OF_IMAGE_FILES for p in problems) and not _have_backslashes(annotations)
    return None if columns is None else Checked(columns, sentences), apart


def _have_backslashes(annotations: Annotations) -> bool:
    return any("\\" in image["file_name"] for image in annotations.images)
