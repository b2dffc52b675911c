"""Photos as 8-bit pixels, read by Pillow alone; every fault of a file is one sentence."""

import logging
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from align_detr.errors import DatasetError

ORIENTATION = 0x0112
"""EXIF tag: how the stored pixels are turned when a photo is shown."""
SWAPPING = (5, 6, 7, 8)
"""Orientations that swap width and height."""
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_WHITE = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "I": None, "F": None}
_DARK = 4096  # 16-bit files below this level hold 12 bits, as many cameras do
_told_dark: list[str] = []  # the first such file, of which alone the log tells

logger = logging.getLogger(__name__)

Decode = Callable[[Image.Image, BinaryIO, int], "np.ndarray | None"]


def photo_at(
    file_name: str,
    *,
    entry: str = "",
    white_level: float | None = None,
    open_file: Callable[[str], BinaryIO] | None = None,
    decode: Decode | None = None,
    convert: Callable[[Image.Image], np.ndarray] | None = None,
) -> tuple[np.ndarray, int]:
    """Return an image file (H, W, 3) uint8 as it is shown, and the EXIF orientation of what is stored.

    Grey images of more than 8 bits are scaled so that `white_level` becomes 255; by default 65535 in 16-bit files.
    entry: which image of a data set it is, for errors. open_file: opens the file, by default a local one. decode:
    decodes an image that Pillow has opened, or leaves it to Pillow by None; gets the file and the orientation.
    convert: makes pixels of an image as shown, by default RGB. Raise DatasetError for a file that is missing, cannot be
    read, or has grey levels of unknown range.
    """
    remedy = ", or remove the image from the annotations" if entry else ""
    try:
        with (open_file or _open)(file_name) as file, Image.open(file) as stored:
            orientation = orientation_of(stored)
            pixels = None if decode is None else decode(stored, file, orientation)
            if pixels is None:
                pixels = (convert or as_rgb)(as_shown(stored, named(file_name, entry), white_level, bool(entry)))
            return pixels, orientation
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image file {file_name}{entry} does not exist: "
            f"{'complete the image folder' if entry else 'correct its path'}{remedy}."
        ) from error
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders raise anything, such as SyntaxError and struct.error
        raise _unreadable(named(file_name, entry), error, remedy, of_data=bool(entry)) from error


def read_photo(path: str, *, white_level: float | None = None) -> np.ndarray:
    """Return an image file of no data set as RGB, as `photo_at` does; raise DatasetError as it does."""
    return photo_at(path, white_level=white_level)[0]


def photo_of(image: Image.Image, *, white_level: float | None = None) -> np.ndarray:
    """Return an image in memory, of any of Pillow's modes, as `photo_at` returns its file."""
    return as_rgb(as_shown(image, named(""), white_level))


def photo_in(content: bytes, *, white_level: float | None = None) -> np.ndarray:
    """Return the image in the bytes of an image file as `photo_at` returns the file's; raise DatasetError as it."""
    try:
        with Image.open(BytesIO(content)) as stored:
            return as_rgb(as_shown(stored, named(""), white_level))
    except DatasetError:
        raise
    except Exception as error:  # as in `photo_at`
        raise _unreadable(named(""), error, "", of_data=False) from error


def as_shown(stored: Image.Image, name: str, white_level: float | None = None, of_data: bool = False) -> Image.Image:
    """Return an image turned as its EXIF tag says, with at most 8 bits per channel; `name` is what errors call it."""
    turn = _TURNS.get(orientation_of(stored))
    shown = stored if turn is None else stored.transpose(turn)
    return _to_8_bits(shown, name, white_level, of_data) if shown.mode in _WHITE else shown


def as_rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of an image."""
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def orientation_of(image: Image.Image) -> int:
    """Return the value of the EXIF tag, 1 (upright) where there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF data is no EXIF data
        return 1


def named(file_name: str, entry: str = "") -> str:
    """Return how an error calls an image, one in memory without a file's name."""
    return f"The image file {file_name}{entry}" if file_name else "The image in memory"


def _open(file_name: str) -> BinaryIO:
    return open(file_name, "rb")


def _to_8_bits(image: Image.Image, name: str, white_level: float | None, of_data: bool) -> Image.Image:
    """Return an image of integers or floats as 8-bit grey; raise DatasetError where the level of white is not known."""
    white = white_level or _WHITE[image.mode]
    if white is None:
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise DatasetError(
            f"{name} holds {kind}, of which white is not known: {_white_remedy('...', of_data)}, or convert the "
            "images to 8 bits."
        )
    levels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if white_level is None and levels.size and levels.max() < _DARK and not _told_dark:
        _told_dark.append(name)
        logger.warning(
            "%s has 16 bits, but no level above %d, and comes out almost black: if the camera has 12 bits, %s.",
            name,
            int(levels.max()),
            _white_remedy("4095", of_data),
        )
    return Image.fromarray((levels * (255 / white)).clip(0, 255).round().astype(np.uint8))


def _white_remedy(level: str, of_data: bool) -> str:
    """Return how the level of white is set: for a data set, or where one predicts."""
    if of_data:
        return (
            f"set white_level of the mappers (+dataloader.train.mapper.white_level={level}, and of test: "
            f"+dataloader.test.mapper.white_level={level})"
        )
    return f"predict with white_level={level} (--white-level {level})"


def _unreadable(name: str, error: Exception, remedy: str, *, of_data: bool) -> DatasetError:
    if isinstance(error, Image.DecompressionBombError):
        where = "in the config file" if of_data else "in Python before you predict"
        return DatasetError(
            f"{name} has more pixels than Pillow's limit against malicious files: use smaller "
            f"images, or set PIL.Image.MAX_IMAGE_PIXELS = None {where} if you trust them."
        )
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, UnidentifiedImageError):  # its text shows the open file as a Python object
        reason = "it is in no image format that Pillow knows"
    return DatasetError(f"{name} cannot be read ({reason}): replace the file{remedy}.")
