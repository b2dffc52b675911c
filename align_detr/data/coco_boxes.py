"""Reading of what a box detector uses of a COCO file, in a fraction of the time and memory of the whole.

msgspec decodes the values that are asked for and skips the others. It reads what Python's `json` reads to the same
values, or objects: then, and wherever the whole of the annotations is needed, there is None and `read_coco` is asked.
"""

import codecs
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, TypedDict, cast

import msgspec

from align_detr.data.annotation_table import ABSENT, AnnotationTable
from align_detr.data.annotations import Annotations
from align_detr.data.check_objects import are_sound_keypoints, is_sound_segmentation
from align_detr.data.number_columns import Column, as_list, compact, concatenate
from align_detr.data.values import find_repeated

_BATCH = 1 << 14  # annotations that are Python's objects at one time
_PIECE = 1 << 20  # bytes whose encoding is checked at one time


class _Image(TypedDict, total=False):
    id: Any
    file_name: Any
    width: Any
    height: Any


class _Annotation(msgspec.Struct, gc=False):
    id: Any = ABSENT
    image_id: Any = ABSENT
    category_id: Any = ABSENT
    bbox: Any = ABSENT
    area: Any = ABSENT
    iscrowd: Any = ABSENT
    ignore: Any = ABSENT
    segmentation: msgspec.Raw = msgspec.Raw()
    keypoints: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[Any]
    annotations: list[msgspec.Raw] = []


_VALUES = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore")
_decode_file = msgspec.json.Decoder(_File).decode
_decode_annotation = msgspec.json.Decoder(_Annotation).decode
_decode_polygons = msgspec.json.Decoder(list[list[float]]).decode


def parse_boxes(content: bytes, path: Path, image_root: Path) -> Annotations | None:
    """Return the annotations of the COCO file `path` of this content, without segmentations and keypoints.

    Those that are broken stay, so that the checks report them. None: the file has to be read as a whole.
    """
    if not _is_utf8(content):
        return None
    try:
        file = _decode_file(content)
        columns = _read_columns(file.annotations)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if find_repeated(as_list(columns["id"])):  # the whole of two annotations tells whether they are the same
        return None
    table = AnnotationTable(columns, len(file.annotations))
    images = cast(list[dict[str, Any]], file.images)
    return Annotations(images, table, file.categories, image_root, source=path)


def _is_utf8(content: bytes) -> bool:
    """Return whether all of the content is UTF-8: what is skipped is not decoded."""
    if content.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), _PIECE):
            decoder.decode(content[start : start + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _read_columns(annotations: Sequence[msgspec.Raw]) -> dict[str, Column]:
    """Return the columns of annotations; those of doubtful segmentations and keypoints only if there are any."""
    parts: dict[str, list[Column]] = {key: [] for key in (*_VALUES, *_OMITTED)}
    for batch in _batches(annotations):
        for key in _VALUES:
            parts[key].append(compact(list(map(attrgetter(key), batch))))
        for key, read_doubtful in _OMITTED.items():
            parts[key].append([read_doubtful(raw) for raw in map(attrgetter(key), batch)])
    columns = {key: concatenate(each) for key, each in parts.items()}
    sound = {key for key in _OMITTED if all(value is ABSENT for value in as_list(columns[key]))}
    return {key: column for key, column in columns.items() if key not in sound}


def _batches(annotations: Sequence[msgspec.Raw]) -> Iterator[list[_Annotation]]:
    rest = map(_decode_annotation, annotations)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _doubtful_segmentation(raw: msgspec.Raw) -> Any:
    """Return a segmentation that is broken, ABSENT for another."""
    if not raw:
        return ABSENT
    try:
        if all(len(polygon) >= 6 and not len(polygon) % 2 for polygon in _decode_polygons(raw)):
            return ABSENT
    except msgspec.MsgspecError:
        pass
    return _doubtful(raw, is_sound_segmentation)


def _doubtful_keypoints(raw: msgspec.Raw) -> Any:
    """Return keypoints that are broken, ABSENT for others."""
    return _doubtful(raw, are_sound_keypoints) if raw else ABSENT


def _doubtful(raw: msgspec.Raw, is_sound: Callable[[Any], bool]) -> Any:
    value = json.loads(bytes(raw))
    return value if value and not is_sound(value) else ABSENT


_OMITTED = {"segmentation": _doubtful_segmentation, "keypoints": _doubtful_keypoints}
