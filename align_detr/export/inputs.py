"""Images as an exported detector takes them, by numpy alone: resized, padded, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align_detr.errors import DatasetError
from align_detr.export.metadata import LARGEST, Description
from align_detr.export.resizing import resize

Size = tuple[int, int]


@dataclass(frozen=True)
class Input:
    """One image as the detector sees it: pixels (h, w, 3) uint8 RGB, and the (height, width) of the image itself."""

    pixels: np.ndarray
    size: Size

    @property
    def seen(self) -> Size:
        """Height and width in which the detector sees the image."""
        return self.pixels.shape[0], self.pixels.shape[1]


def prepare(pixels: np.ndarray, description: Description, name: str) -> Input:
    """Return RGB pixels (H, W, 3) uint8 in the size that the file asks for.

    Raise DatasetError for an image that is too thin or too large for it; `name` is what the error calls it.
    """
    height, width = pixels.shape[:2]
    size = seen_size((height, width), description)
    if not all(1 <= side <= LARGEST for side in size):
        raise DatasetError(f"{name} with {width}x{height} pixels cannot be resized to {size[1]}x{size[0]}: crop it.")
    if size != (height, width):
        pixels = resize(pixels, size)
    return Input(pixels, (height, width))


def seen_size(size: Size, description: Description) -> Size:
    """Return the (height, width) in which an image is seen: of a file with a fixed size the largest that fits into it,
    else that of the test mapper, whose short edge is `resize[0]` unless the long one would exceed `resize[1]`.
    """
    height, width = size
    if description.size is not None:
        limits = description.size
        scale = min(limits[0] / height, limits[1] / width)
        return min(limits[0], _rounded(height * scale)), min(limits[1], _rounded(width * scale))
    if description.resize is None:
        return size
    short, longest = description.resize
    scale = short / min(height, width)
    sides = (float(short), scale * width) if height < width else (scale * height, float(short))
    if max(sides) > longest:
        scale = longest / max(sides)
        sides = (sides[0] * scale, sides[1] * scale)
    return _rounded(sides[0]), _rounded(sides[1])


def _rounded(side: float) -> int:
    return int(side + 0.5)


def batches(images: Sequence[Input], description: Description) -> list[list[int]]:
    """Return the indices of the images of each pass: of one size where sizes are free, as a batch's padding would reach
    the features of smaller images, and as many as the file takes.
    """
    groups: dict[Size | None, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.seen if description.size is None else None, []).append(index)
    most = description.batch or len(images)
    return [group[k : k + most] for group in groups.values() for k in range(0, len(group), most)]


def feed(images: Sequence[Input], description: Description) -> dict[str, np.ndarray]:
    """Return the file's two inputs: `images` (B, 3, H, W), padded at the right and the bottom, and `sizes` (B, 2).

    A file with a fixed batch gets its last image again until there are enough.
    """
    filled = [*images, *[images[-1]] * ((description.batch or len(images)) - len(images))]
    height, width = description.size or tuple(
        -(-max(sides) // description.multiple) * description.multiple
        for sides in zip(*(image.seen for image in filled), strict=True)
    )
    batch = np.zeros((len(filled), 3, height, width), dtype=np.float32 if description.normalised else np.uint8)
    for place, image in zip(batch, filled, strict=True):
        place[:, : image.seen[0], : image.seen[1]] = _channels(image.pixels, description)
    return {"images": batch, "sizes": np.array([image.seen for image in filled], dtype=np.int64)}


def _channels(pixels: np.ndarray, description: Description) -> np.ndarray:
    """Return pixels with their channels first, normalised where the file does not do it."""
    if not description.normalised:
        return pixels.transpose(2, 0, 1)
    ordered = pixels[..., ::-1] if description.channels == "BGR" else pixels
    mean, std = (np.array(values, dtype=np.float32) for values in (description.mean, description.std))
    return ((ordered.astype(np.float32) - mean) / std).transpose(2, 0, 1)
