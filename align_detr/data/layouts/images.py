"""Sizes of image files from their headers."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from align_detr.errors import DatasetError
from align_detr.photos import ORIENTATION, SWAPPING

_LONG = 1000  # files from which on reading their headers shows a progress bar

T = TypeVar("T")


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height as the image is shown, i.e. after EXIF's orientation, from the header alone.

    Raise DatasetError for a file that is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION) in SWAPPING
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
