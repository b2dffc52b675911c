"""Reading of image files as 8-bit pixels; every fault of a file is one sentence."""

import logging
from io import BytesIO
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.logger import log_first_n
from PIL import Image, UnidentifiedImageError

from align_detr.data.decoding import decode_photo
from align_detr.data.shard_images import open_image
from align_detr.errors import DatasetError

ORIENTATION = 0x0112
"""EXIF tag: how the stored pixels are turned when a photo is shown."""
SWAPPING = (5, 6, 7, 8)
"""Orientations that swap width and height."""
_WHITE = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "I": None, "F": None}
_DARK = 4096  # 16-bit files below this level hold 12 bits, as many cameras do


def read_image(record: dict[str, Any], image_format: str, white_level: float | None = None) -> np.ndarray:
    """Return the record's image (H, W, 3) uint8 as it is shown, and complete the record's height and width.

    Grey images of more than 8 bits are scaled so that `white_level` becomes 255; by default 65535 in 16-bit files.
    Raise DatasetError for a file that is missing, cannot be read, has grey levels of unknown range, or is of another
    size than the record's.
    """
    file_name = record["file_name"]
    entry = f" (image {record.get('image_id', '?')} of the data set)"
    image, orientation = _read(file_name, entry, image_format, white_level)
    try:
        detection_utils.check_image_size(record, image)
    except detection_utils.SizeMismatchError as error:
        raise _other_size(record, entry, (image.shape[1], image.shape[0]), orientation) from error
    return image


def read_photo(path: str, *, image_format: str = "RGB", white_level: float | None = None) -> np.ndarray:
    """Return an image file of no data set as `read_image` does, (H, W, 3) uint8; raise DatasetError as it does."""
    return _read(path, "", image_format, white_level)[0]


def photo_of(image: Image.Image, *, image_format: str = "RGB", white_level: float | None = None) -> np.ndarray:
    """Return an image in memory, of any of Pillow's modes, as `read_photo` returns its file."""
    return _as_shown(image, "", image_format, white_level)


def photo_in(content: bytes, *, image_format: str = "RGB", white_level: float | None = None) -> np.ndarray:
    """Return the image in the bytes of an image file as `read_photo` returns the file's; raise DatasetError as it."""
    try:
        with Image.open(BytesIO(content)) as stored:
            return _as_shown(stored, "", image_format, white_level)
    except DatasetError:
        raise
    except Exception as error:  # as in `_read`
        raise _unreadable("", "", error, "") from error


def _read(file_name: str, entry: str, image_format: str, white_level: float | None) -> tuple[np.ndarray, int]:
    """Return a file's image (H, W, 3) uint8 as it is shown, and the EXIF orientation of what is stored."""
    remedy = ", or remove the image from the annotations" if entry else ""
    try:
        with open_image(file_name) as file, Image.open(file) as stored:
            orientation = orientation_of(stored)
            pixels = decode_photo(stored, file, orientation) if image_format == "RGB" else None
            if pixels is None:
                pixels = _as_shown(stored, file_name, image_format, white_level, entry)
            return pixels, orientation
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image file {file_name}{entry} does not exist: "
            f"{'complete the image folder' if entry else 'correct its path'}{remedy}."
        ) from error
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders raise anything, such as SyntaxError and struct.error
        raise _unreadable(file_name, entry, error, remedy) from error


def _as_shown(
    stored: Image.Image, file_name: str, image_format: str, white_level: float | None, entry: str = ""
) -> np.ndarray:
    shown = detection_utils._apply_exif_orientation(stored)
    grey = _to_8_bits(shown, _named(file_name, entry), white_level, bool(entry)) if shown.mode in _WHITE else shown
    return detection_utils.convert_PIL_to_numpy(grey, None if grey.mode == image_format else image_format)


def orientation_of(image: Image.Image) -> int:
    """Return the value of the EXIF tag, 1 (upright) where there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF data is no EXIF data
        return 1


def _named(file_name: str, entry: str) -> str:
    """Return how an error calls an image, one in memory without a file's name."""
    return f"The image file {file_name}{entry}" if file_name else "The image in memory"


def _to_8_bits(image: Image.Image, named: str, white_level: float | None, of_data: bool) -> Image.Image:
    """Return an image of integers or floats as 8-bit grey; raise DatasetError where the level of white is not known."""
    white = white_level or _WHITE[image.mode]
    if white is None:
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise DatasetError(
            f"{named} holds {kind}, of which white is not known: {_white_remedy('...', of_data)}, or convert the "
            "images to 8 bits."
        )
    levels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if white_level is None and levels.size and levels.max() < _DARK:
        log_first_n(
            logging.WARNING,
            f"{named} has 16 bits, but no level above {int(levels.max())}, and comes out almost black: if the camera "
            f"has 12 bits, {_white_remedy('4095', of_data)}.",
            name=__name__,
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


def _unreadable(file_name: str, entry: str, error: Exception, remedy: str) -> DatasetError:
    if isinstance(error, Image.DecompressionBombError):
        where = "in the config file" if entry else "in Python before you predict"
        return DatasetError(
            f"{_named(file_name, entry)} has more pixels than Pillow's limit against malicious files: use smaller "
            f"images, or set PIL.Image.MAX_IMAGE_PIXELS = None {where} if you trust them."
        )
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, UnidentifiedImageError):  # its text shows the open file as a Python object
        reason = "it is in no image format that Pillow knows"
    return DatasetError(f"{_named(file_name, entry)} cannot be read ({reason}): replace the file{remedy}.")


def _other_size(record: dict[str, Any], entry: str, shown: tuple[int, int], orientation: int) -> DatasetError:
    """Return the error of an image that is shown in another (width, height) than its record's."""
    file_name, annotated = record["file_name"], (record["width"], record["height"])
    sizes = f"{shown[0]}x{shown[1]} pixels, but its annotation says {annotated[0]}x{annotated[1]}"
    if orientation in SWAPPING and annotated == shown[::-1]:
        return DatasetError(
            f"The image file {file_name}{entry} is turned by its EXIF orientation {orientation} and shown with "
            f"{sizes}, the size before turning, so that its boxes may count other pixels: save the photos turned and "
            "without the tag and export the annotations anew, as correcting the size alone can leave boxes wrong."
        )
    return DatasetError(f"The image file {file_name}{entry} is {sizes}: correct the annotation, or restore the image.")
