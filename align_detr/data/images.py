"""Reading of image files as 8-bit pixels; every fault of a file is one sentence."""

import logging
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from PIL import Image, UnidentifiedImageError

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
    return _as_shown(image, "in memory", image_format, white_level)


def _read(file_name: str, entry: str, image_format: str, white_level: float | None) -> tuple[np.ndarray, int]:
    """Return a file's image (H, W, 3) uint8 as it is shown, and the EXIF orientation of what is stored."""
    remedy = ", or remove the image from the annotations" if entry else ""
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as stored:
            return _as_shown(stored, file_name, image_format, white_level), orientation_of(stored)
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image file {file_name}{entry} does not exist: "
            f"{'complete the image folder' if entry else 'correct its path'}{remedy}."
        ) from error
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders raise anything, such as SyntaxError and struct.error
        raise _unreadable(file_name, entry, error, remedy) from error


def _as_shown(stored: Image.Image, file_name: str, image_format: str, white_level: float | None) -> np.ndarray:
    shown = detection_utils._apply_exif_orientation(stored)
    grey = _to_8_bits(shown, file_name, white_level) if shown.mode in _WHITE else shown
    return detection_utils.convert_PIL_to_numpy(grey, image_format)


def orientation_of(image: Image.Image) -> int:
    """Return the value of the EXIF tag, 1 (upright) where there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF data is no EXIF data
        return 1


def _to_8_bits(image: Image.Image, file_name: str, white_level: float | None) -> Image.Image:
    """Return an image of integers or floats as 8-bit grey; raise DatasetError where the level of white is not known."""
    white = white_level or _WHITE[image.mode]
    if white is None:
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise DatasetError(
            f"The image file {file_name} holds {kind}, of which white is not known: set white_level of the mappers "
            "(+dataloader.train.mapper.white_level=..., and of test), or convert the images to 8 bits."
        )
    levels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if white_level is None and levels.size and levels.max() < _DARK:
        log_first_n(
            logging.WARNING,
            f"The 16-bit image {file_name} has no level above {int(levels.max())} and comes out almost black: if the "
            "camera has 12 bits, set white_level=4095 of the mappers (+dataloader.train.mapper.white_level=4095, and "
            "of test).",
            name=__name__,
        )
    return Image.fromarray((levels * (255 / white)).clip(0, 255).round().astype(np.uint8))


def _unreadable(file_name: str, entry: str, error: Exception, remedy: str) -> DatasetError:
    if isinstance(error, Image.DecompressionBombError):
        return DatasetError(
            f"The image file {file_name}{entry} has more pixels than Pillow's limit against malicious files: use "
            "smaller images, or set PIL.Image.MAX_IMAGE_PIXELS = None in the config file if you trust them."
        )
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, UnidentifiedImageError):  # its text shows the open file as a Python object
        reason = "it is in no image format that Pillow knows"
    return DatasetError(f"The image file {file_name}{entry} cannot be read ({reason}): replace the file{remedy}.")


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
