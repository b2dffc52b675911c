"""Decoding of ordinary JPEG photos by torchvision, without Pillow's copies; every other image is left to Pillow."""

from typing import IO

import numpy as np
import torch
import torchvision  # noqa: F401  # registers the operator
from PIL import Image

_RGB = 3  # torchvision.io.ImageReadMode.RGB
# torchvision announces that its decoders will be removed, at every call of their public names; then Pillow decodes all.
_decode = getattr(torch.ops.image, "decode_jpeg", None)

UPRIGHT = 1
"""The EXIF orientation of a photo that is shown as it is stored."""


def decode_photo(stored: Image.Image, file: IO[bytes], orientation: int) -> np.ndarray | None:
    """Return the pixels (H, W, 3) uint8 of an upright RGB photo in JPEG, those that Pillow decodes, bit by bit.

    `stored` is the image that Pillow has opened from `file` and not yet decoded. Return None for any other image, and
    for a broken one: Pillow decides what it is, and what its error says. The file may then be at any position.
    """
    if _decode is None or stored.format != "JPEG" or stored.mode != "RGB" or orientation != UPRIGHT:
        return None
    file.seek(0)
    try:
        pixels = _decode(torch.frombuffer(bytearray(file.read()), dtype=torch.uint8), _RGB)
    except RuntimeError:
        return None
    decoded = np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0))  # a view: it lies there with channels last
    return decoded if decoded.shape == (*stored.size[::-1], 3) else None
