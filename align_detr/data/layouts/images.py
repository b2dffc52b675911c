"""Image files of a folder, and their sizes from the files' headers."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from align_detr.errors import DatasetError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif", ".mpo"}
)
UNREAD = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".nef", ".arw"})
"""Endings of photos that are not read."""

_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange width and height
_LONG = 1000  # files from which on reading their headers shows a progress bar

T = TypeVar("T")


def is_image(path: Path) -> bool:
    """Return whether the file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder`, sorted by path, without hidden ones (macOS writes ._a.jpg beside a.jpg).

    Linked folders count, but for one that leads back to a folder above it.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        above = Path(parent).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__")) and not above.is_relative_to(Path(parent, name).resolve())
        )
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted by path."""
    return sorted(path for path in files_below(folder) if is_image(path))


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height as the image is shown, i.e. after EXIF's orientation, from the header alone.

    Raise DatasetError for a file that is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except FileNotFoundError as error:
        raise DatasetError(f"The image file {path} does not exist: complete the image folder.") from error
    except Exception as error:  # Pillow's readers of headers raise anything
        raise DatasetError(
            f"The image file {path} cannot be read ({type(error).__name__}: {error}): replace or remove it."
        ) from error
    return (height, width) if turned else (width, height)


def with_progress(items: Iterable[T], *, count: int, title: str) -> Iterable[T]:
    """Return the items, with a progress bar on a terminal if there are many."""
    return tqdm(items, total=count, desc=title, unit=" files", disable=None if count >= _LONG else True)
