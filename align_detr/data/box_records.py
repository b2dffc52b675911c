"""Records of a COCO file's boxes: read in seconds, kept for the next start, shared by processes."""

import logging
from collections.abc import Sequence
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
    set_classes(name, [{"id": id_, "name": label} for id_, label in checked.columns.categories], json_file)
    return Records(checked.columns, str(image_root))


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
