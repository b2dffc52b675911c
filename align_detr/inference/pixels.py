"""One image, in whatever form a user has it, as pixels."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from PIL import Image

from align_detr.errors import ConfigError
from align_detr.photos import photo_in, photo_of, read_photo
from align_detr.value_checks import check_choice

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = ("RGB", "BGR")


class ReadPhoto(Protocol):
    """A function that reads an image file, as `align_detr.photos.read_photo` does."""

    def __call__(self, path: str, *, white_level: float | None = None) -> np.ndarray:
        """Return the file's image as RGB (H, W, 3) uint8."""


def is_tensor(value: object) -> "TypeGuard[Tensor]":
    """Return whether a value is PyTorch's; there is none where PyTorch has not been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_pixels(
    image: Any, *, channels: str = "RGB", white_level: float | None = None, read: ReadPhoto = read_photo
) -> np.ndarray:
    """Return one image as (H, W, 3) uint8 RGB, as it is shown.

    A path, a file's bytes or a PIL image may have any mode (grey, RGBA, palette, 16 bits, EXIF orientation). An array
    is (H, W, 3) with its channels in the order `channels`, (H, W, 4) of which alpha is dropped, or grey (H, W) or
    (H, W, 1); a tensor has its channels first: (3, H, W), (1, H, W), or grey (H, W). Their values are uint8 from 0 to
    255, or floats from 0 to 1; grey arrays may also be uint16. `white_level` is the level of grey images of more than
    8 bits that becomes 255; `read` reads files. Raise ConfigError for any other form, and DatasetError for a file that
    cannot be read.
    """
    if isinstance(image, (str, Path)):
        return read(local_path(image), white_level=white_level)
    if isinstance(image, bytes):
        return photo_in(image, white_level=white_level)
    if isinstance(image, Image.Image):
        return photo_of(image, white_level=white_level)
    if is_tensor(image):
        return _of_array(_channels_last(image), channels, white_level, kind="tensor")
    if isinstance(image, np.ndarray):
        return _of_array(image, channels, white_level, kind="array")
    raise ConfigError(
        f"A {type(image).__name__} is no image: pass a path, a PIL image, an array (H, W, 3) in RGB or a tensor "
        "(3, H, W)."
    )


def local_path(path: str | Path) -> str:
    """Return a path as text; raise ConfigError for a URL and for an empty text."""
    text = str(path)
    if not text.strip():
        raise ConfigError("The path of an image is empty: name an image, a folder or a video.")
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum() or text.partition(":/")[0] in ("http", "https"):  # Path joins the two slashes
        raise ConfigError(f"{text} is a URL, and nothing is fetched here: download the file and pass its path.")
    return text


def _channels_last(image: "Tensor") -> np.ndarray:
    """Return a tensor (3, H, W), (1, H, W) or (H, W) with the channels last."""
    if image.dim() == 4:
        raise ConfigError(
            f"A tensor of shape {tuple(image.shape)} is a batch: pass a list of its images, list(tensor)."
        )
    if image.dim() == 3 and image.shape[0] not in (1, 3):
        raise ConfigError(
            f"A tensor of shape {tuple(image.shape)} is no image of shape (3, H, W): pass image.permute(2, 0, 1) if "
            "its channels are last."
        )
    values = image.detach().cpu()
    values = values.float() if values.is_floating_point() and values.element_size() < 4 else values  # bfloat16
    return (values.permute(1, 2, 0) if values.dim() == 3 else values).numpy()


def _of_array(image: np.ndarray, channels: str, white_level: float | None, *, kind: str) -> np.ndarray:
    """Return an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as RGB uint8."""
    check_choice(channels, "channels", CHANNELS)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or 0 in image.shape:
        raise ConfigError(
            f"An array of shape {image.shape} is no image: pass (H, W, 3) in RGB, or (H, W) in grey"
            + (", as image.transpose(1, 2, 0) gives it." if image.ndim == 3 and image.shape[0] in (1, 3) else ".")
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.dtype == np.uint16 and image.ndim == 2:
        return photo_of(Image.fromarray(image), white_level=white_level)
    values = _as_bytes(image, kind)
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    values = values[..., :3]
    return np.ascontiguousarray(values[..., ::-1] if channels == "BGR" else values)


def _as_bytes(image: np.ndarray, kind: str) -> np.ndarray:
    """Return uint8 values, from floats between 0 and 1 if need be."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "b":
        return image.astype(np.uint8) * np.uint8(255)
    low, high = image.min(), image.max()
    if image.dtype.kind != "f":
        raise ConfigError(
            f"The {kind} holds {image.dtype} from {low} to {high}, whose white is not known: convert it to uint8 from "
            "0 to 255."
        )
    if not (0 <= low <= high <= 1):  # also if one of them is NaN
        raise ConfigError(
            f"The {kind} holds floats from {low:g} to {high:g}, but floats are read as 0 to 1: undo any normalisation "
            "and divide by 255, or convert to uint8."
        )
    return (image * 255).round().astype(np.uint8)
