"""Reading of COCO's JSON files: their form is checked here, their content by `problems`."""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.errors import DatasetError

_SHAPE = 'a JSON object with the lists "images", "annotations" and "categories"'


def read_coco(json_file: str | os.PathLike, image_root: str | os.PathLike) -> Annotations:
    """Return the content of a COCO file as it is written; `repair` makes it usable.

    A byte order mark is skipped. A file without "annotations" (a test set) has none. Raise DatasetError for a file that
    is missing, is no JSON, or lacks the lists of images and categories.
    """
    path = Path(json_file)
    return as_annotations(read_json(path), path, Path(image_root))


def as_annotations(content: Any, path: Path, image_root: Path) -> Annotations:
    """Return the parsed content of the COCO file `path`; raise DatasetError if it lacks images or categories."""
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a JSON {type(content).__name__}, but COCO's format is {_SHAPE}: correct it.")
    content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise DatasetError(f'{path} has no "{key}", but COCO\'s format is {_SHAPE}: correct the file.')
        if not isinstance(content[key], list):
            raise DatasetError(f'"{key}" of {path} is no list, but COCO\'s format is {_SHAPE}: correct the file.')
    return Annotations(
        images=content["images"],
        annotations=content["annotations"],
        categories=content["categories"],
        image_root=image_root,
        source=path,
    )


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep Python from searching what is read for cycles again and again: 40 % of the time of reading COCO."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_json(path: Path) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32; raise DatasetError for a file that is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"The annotation file {path} does not exist: correct its path.") from error
    except OSError as error:
        raise DatasetError(f"The annotation file {path} cannot be read ({error.strerror}): correct that.") from error
    return parse_json(content, path)


def parse_json(content: bytes, path: Path) -> Any:
    """Return the content of the JSON file `path`, parsed; raise DatasetError for what is no JSON."""
    try:
        with collection_paused():
            return json.loads(content)  # bytes: a byte order mark tells the encoding
    except UnicodeDecodeError as error:
        raise DatasetError(f"The annotation file {path} is not in UTF-8 ({error}): save it as UTF-8.") from error
    except ValueError as error:
        raise DatasetError(
            f"The annotation file {path} is not in COCO's format, it is no JSON ({error}): correct or export it anew."
        ) from error
