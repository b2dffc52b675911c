"""Scenes of the built-in data set "digits in photos": handwritten digits pasted on crops of photographs.

Both sources come with scikit-learn: 1,797 digits of 8x8 pixels (`load_digits`) and two photos (`load_sample_images`).
Training and held-out scenes share no digit and no photo pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from align_detr.errors import EnvironmentProblem

IMAGE_SIZE = 128
"""Height and width of a scene in pixels."""
INK_THRESHOLD = 0.3
"""A digit's box holds every pixel with more ink than this."""

SPLITS = ("train", "val")
_HELD_OUT_PHOTO = 0.4  # left share of each photo; the right side of both is mostly sky
_DIGITS_COUNT = (2, 8)
_DIGIT_HEIGHT = (16.0, 64.0)  # pixels, of the whole 8x8 grid
_MAX_LOG_ASPECT = 0.15
_MAX_OVERLAP = 0.15  # intersection over the smaller box
_MAX_ANGLE, _MAX_SHEAR = math.radians(12), 0.15  # training only
_GAIN, _MAX_OFFSET = (0.7, 1.3), 0.1  # training only
_CROP_SIDE = (96, 190)
_OPACITY = (0.7, 1.0)
_MIN_CONTRAST = 0.25
_SHAPE_ATTEMPTS, _BOX_ATTEMPTS = 10, 5  # digits tried per digit wanted; positions tried per digit
_PAD = 2  # empty cells around the 8x8 grid: the bicubic kernel reaches two cells
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class SceneSources:
    """Digits and photos of one split.

    digits: (N, 8, 8) float32 ink in [0, 1]; labels: (N,) int64 in 0..9; indices: (N,) int64 into `load_digits`;
    photos: RGB images, only the part of each photo that belongs to the split; augment: rotate and shear digits, and
    change the brightness.
    """

    digits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    photos: tuple[Image.Image, ...]
    augment: bool


@dataclass(frozen=True)
class SceneDigit:
    """A digit of a scene: class 0..9, index of its source in `load_digits`, box (x0, y0, x1, y1) in whole pixels."""

    label: int
    source: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class DrawnDigit:
    """A digit with its ink (h, w) float32, whose first pixel lies at (x, y) of the scene, on it or beside it."""

    digit: SceneDigit
    ink: np.ndarray
    x: int
    y: int

    def mask(self) -> np.ndarray:
        """Return the pixels of the scene with more ink than the threshold, (128, 128) bool: the box is around them."""
        mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
        top, left = max(0, -self.y), max(0, -self.x)
        ink = self.ink[top : IMAGE_SIZE - self.y, left : IMAGE_SIZE - self.x]
        mask[self.y + top : self.y + top + ink.shape[0], self.x + left : self.x + left + ink.shape[1]] = (
            ink > INK_THRESHOLD
        )
        return mask


def load_sources(split: str) -> SceneSources:
    """Read the digits and the photo regions of `split` ("train" or "val").

    A quarter of each class's digits and the left 40 % of both photos are held out for "val", whatever the seed of the
    scenes. Raise EnvironmentProblem without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_image  # takes a second: only when needed
    except ImportError as error:
        raise EnvironmentProblem(
            f"The digits data set is made from scikit-learn's digits and photos, but scikit-learn cannot be imported "
            f"({error}): install it with pip install scikit-learn."
        ) from error
    assert split in SPLITS, split
    held_out = split == "val"
    bunch = load_digits()
    indices = _digit_indices(bunch.target, held_out)
    photos = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        border = int(_HELD_OUT_PHOTO * photo.shape[1])
        photos.append(Image.fromarray(np.ascontiguousarray(photo[:, :border] if held_out else photo[:, border:])))
    return SceneSources(
        digits=(bunch.images[indices] / 16.0).astype(np.float32),
        labels=bunch.target[indices].astype(np.int64),
        indices=indices,
        photos=tuple(photos),
        augment=not held_out,
    )


def _digit_indices(labels: np.ndarray, held_out: bool) -> np.ndarray:
    """Return the sorted indices (N,) of the split's digits; a random quarter of each class is held out."""
    rng = np.random.default_rng(0)
    chosen = []
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        quarter = len(members) // 4
        chosen.append(members[:quarter] if held_out else members[quarter:])
    return np.sort(np.concatenate(chosen))


def warp_digit(
    digit: np.ndarray, *, height: float, log_aspect: float = 0.0, angle: float = 0.0, shear: float = 0.0
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Enlarge an (8, 8) digit by one bicubic warp (Pillow's kernel, a = -1) of the zero-padded grid.

    height: of the 8x8 grid in pixels; log_aspect: the width is height * exp(log_aspect); angle: radians; shear: x
    per y. Return the ink (h, w) float32 in [0, 1], cropped to the pixels that have any, and in it the box
    (x0, y0, x1, y1) of the ink above the threshold.
    """
    cell_y = height / digit.shape[0]
    cell_x = cell_y * math.exp(log_aspect)
    cos, sin = math.cos(angle), math.sin(angle)
    forward = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([cell_x, cell_y])
    padded = np.zeros([side + 2 * _PAD for side in digit.shape], dtype=np.float32)
    padded[_PAD:-_PAD, _PAD:-_PAD] = digit
    half = np.ceil(np.abs(forward).sum(axis=1) * (digit.shape[0] / 2 + 1))  # the ink fades within one cell
    inverse = np.linalg.inv(forward)
    offset = padded.shape[0] / 2 - inverse @ half
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    size = (int(2 * half[0]), int(2 * half[1]))
    warped = Image.fromarray(padded).transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    ink = np.clip(np.asarray(warped), 0.0, 1.0)
    rows, columns = ink.max(axis=1), ink.max(axis=0)
    top, bottom = _extent(rows, 1 / 255)
    left, right = _extent(columns, 1 / 255)
    box_top, box_bottom = _extent(rows, INK_THRESHOLD)
    box_left, box_right = _extent(columns, INK_THRESHOLD)
    return ink[top:bottom, left:right], (box_left - left, box_top - top, box_right - left, box_bottom - top)


def _extent(profile: np.ndarray, threshold: float) -> tuple[int, int]:
    """Return the first index above `threshold`, and one more than the last."""
    above = np.flatnonzero(profile > threshold)
    return int(above[0]), int(above[-1]) + 1


def paste_ink(canvas: np.ndarray, ink: np.ndarray, *, x: int, y: int, color: ArrayLike, opacity: float) -> None:
    """Blend ink (h, w) of one colour into the canvas (H, W, 3), in place, with its first pixel at (x, y).

    Ink outside the canvas is cut off.
    """
    top, left = max(0, -y), max(0, -x)
    ink = ink[top : canvas.shape[0] - y, left : canvas.shape[1] - x]
    target = canvas[y + top : y + top + ink.shape[0], x + left : x + left + ink.shape[1]]
    alpha = (ink * np.float32(opacity))[..., None]
    target += alpha * (np.asarray(color, dtype=np.float32) - target)


def render_scene(rng: np.random.Generator, sources: SceneSources) -> tuple[np.ndarray, list[SceneDigit]]:
    """Draw one scene: a photo crop with 2 to 8 digits at random scale, position and contrast.

    Return the RGB image (128, 128, 3) uint8 and its digits in the order of drawing. A digit without a free box is
    given up, so that crowded scenes have fewer digits than drawn for, but never fewer than 2.
    """
    canvas = _background(rng, sources.photos)
    drawn = draw_digits(rng, canvas, sources)
    return as_image(rng, canvas, sources), [each.digit for each in drawn]


def draw_digits(rng: np.random.Generator, canvas: np.ndarray, sources: SceneSources) -> list[DrawnDigit]:
    """Draw 2 to 8 digits on the canvas (128, 128, 3) in place, and return them in the order of drawing."""
    wanted = int(rng.integers(_DIGITS_COUNT[0], _DIGITS_COUNT[1] + 1))
    drawn: list[DrawnDigit] = []
    attempts = 0
    while len(drawn) < wanted and (attempts < _SHAPE_ATTEMPTS * wanted or len(drawn) < _DIGITS_COUNT[0]):
        attempts += 1
        index = int(rng.integers(len(sources.digits)))
        ink, (left, top, right, bottom) = warp_digit(sources.digits[index], **_random_shape(rng, sources.augment))
        box = _free_box(rng, right - left, bottom - top, [each.digit.box for each in drawn])
        if box is None:
            continue
        background = float((canvas[box[1] : box[3], box[0] : box[2]] @ _LUMINANCE).mean())
        color, opacity = _contrasting_color(rng, background), rng.uniform(*_OPACITY)
        x, y = box[0] - left, box[1] - top
        paste_ink(canvas, ink, x=x, y=y, color=color, opacity=opacity)
        digit = SceneDigit(label=int(sources.labels[index]), source=int(sources.indices[index]), box=box)
        drawn.append(DrawnDigit(digit, ink, x, y))
    return drawn


def as_image(rng: np.random.Generator, canvas: np.ndarray, sources: SceneSources) -> np.ndarray:
    """Return the canvas (H, W, 3) as uint8, of another brightness in training."""
    if sources.augment:
        canvas = canvas * np.float32(rng.uniform(*_GAIN)) + np.float32(rng.uniform(-_MAX_OFFSET, _MAX_OFFSET))
    return np.rint(np.clip(canvas, 0.0, 1.0) * 255).astype(np.uint8)


def _free_box(
    rng: np.random.Generator, width: int, height: int, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Return a random box of this size that hardly overlaps the taken ones, or None if a few attempts find none."""
    for _ in range(_BOX_ATTEMPTS):
        x, y = int(rng.integers(IMAGE_SIZE - width + 1)), int(rng.integers(IMAGE_SIZE - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= _MAX_OVERLAP for other in taken):
            return box
    return None


def _random_shape(rng: np.random.Generator, augment: bool) -> dict[str, float]:
    """Return random arguments of `warp_digit`."""
    low, high = (math.log(edge) for edge in _DIGIT_HEIGHT)
    shape = {
        "height": math.exp(rng.uniform(low, high)),
        "log_aspect": rng.uniform(-_MAX_LOG_ASPECT, _MAX_LOG_ASPECT),
    }
    if augment:
        shape["angle"] = rng.uniform(-_MAX_ANGLE, _MAX_ANGLE)
        shape["shear"] = rng.uniform(-_MAX_SHEAR, _MAX_SHEAR)
    return shape


def _background(rng: np.random.Generator, photos: tuple[Image.Image, ...]) -> np.ndarray:
    """Return a `photo_crop` of one of the photos."""
    return photo_crop(rng, photos[int(rng.integers(len(photos)))])


def photo_crop(rng: np.random.Generator, photo: Image.Image) -> np.ndarray:
    """Return a square crop of a photo, resized, and flipped half of the time: (128, 128, 3) float32 in [0, 1]."""
    side = int(rng.integers(_CROP_SIDE[0], _CROP_SIDE[1] + 1))
    x, y = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    crop = photo.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    pixels = np.asarray(crop)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels.astype(np.float32) / 255


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Return the intersection of two boxes over the smaller one's area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / smaller


def _contrasting_color(rng: np.random.Generator, background: float) -> np.ndarray:
    """Return a random RGB colour in [0, 1] whose luminance differs by at least 0.25 from `background`."""
    while True:
        colors = rng.random((32, 3))
        fitting = np.flatnonzero(np.abs(colors @ _LUMINANCE - background) >= _MIN_CONTRAST)
        if len(fitting):
            return colors[fitting[0]]
