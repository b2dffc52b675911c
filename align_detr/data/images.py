"""Reading of a data set's image files as 8-bit pixels: in folders and shards, decoded as fast as can be."""

from functools import partial
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from PIL import Image

from align_detr.data.decoding import decode_photo
from align_detr.data.shard_images import open_image
from align_detr.errors import DatasetError
from align_detr.photos import SWAPPING, photo_at


def read_image(record: dict[str, Any], image_format: str, white_level: float | None = None) -> np.ndarray:
    """Return the record's image (H, W, 3) uint8 as it is shown, and complete the record's height and width.

    Grey images of more than 8 bits are scaled so that `white_level` becomes 255; by default 65535 in 16-bit files.
    Raise DatasetError for a file that is missing, cannot be read, has grey levels of unknown range, or is of another
    size than the record's.
    """
    file_name = record["file_name"]
    entry = f" (image {record.get('image_id', '?')} of the data set)"
    image, orientation = photo_at(
        file_name,
        entry=entry,
        white_level=white_level,
        open_file=open_image,
        decode=decode_photo if image_format == "RGB" else None,
        convert=partial(_in_format, image_format=image_format),
    )
    try:
        detection_utils.check_image_size(record, image)
    except detection_utils.SizeMismatchError as error:
        raise _other_size(record, entry, (image.shape[1], image.shape[0]), orientation) from error
    return image


def read_photo(path: str, *, white_level: float | None = None) -> np.ndarray:
    """Return an image file of no data set as RGB, read as `read_image` does; raise DatasetError as it does."""
    return photo_at(path, white_level=white_level, open_file=open_image, decode=decode_photo)[0]


def _in_format(image: Image.Image, image_format: str) -> np.ndarray:
    return detection_utils.convert_PIL_to_numpy(image, None if image.mode == image_format else image_format)


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
