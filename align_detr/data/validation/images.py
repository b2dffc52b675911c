"""Checks that open the images: missing, unreadable, of other size, turned by their EXIF tag, of more than 8 bits."""

import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from align_detr.cpus import usable_cpus
from align_detr.data.findings import Findings
from align_detr.data.shard_images import join_image, open_image
from align_detr.errors import DatasetError
from align_detr.photos import SWAPPING, orientation_of

_DEEP = ("I", "F")  # how the modes of 16-bit, 32-bit and float images begin in Pillow
_LONG = 500  # images from which on a progress bar is shown


@dataclass(frozen=True)
class Photo:
    """What an image file holds: size (width, height) as stored, EXIF orientation (1: upright), Pillow's mode, the
    highest level of a mode with more than 8 bits, and a hash of the decoded pixels. Where the file cannot be read,
    `fault` is the kind of problem, with its `values`.
    """

    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    mode: str = ""
    highest: float = 255
    digest: str = ""
    fault: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as the image is shown and trained on."""
        width, height = self.size
        return (height, width) if self.orientation in SWAPPING else (width, height)


def read_photo(path: str) -> Photo:
    """Return what the file holds, after decoding all of it; a file at fault is a Photo as well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large images and odd EXIF tags
            with open_image(path) as file, Image.open(file) as image:
                orientation = orientation_of(image)
                image.load()
                deep = image.mode.startswith(_DEEP)
                pixels = image if deep else image.convert("RGB")
                digest = hashlib.blake2b(f"{image.size}".encode() + pixels.tobytes(), digest_size=16).hexdigest()
                highest = float(np.asarray(image).max()) if deep else 255
                return Photo(image.size, orientation, image.mode, highest, digest)
    except FileNotFoundError:
        return Photo(fault="image-missing", values={"path": path})
    except Image.DecompressionBombError:
        return Photo(fault="image-large", values={"path": path})
    except Exception as error:  # Pillow's decoders raise anything, such as SyntaxError and struct.error
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, UnidentifiedImageError):  # its text shows the open file as a Python object
            reason = "it is in no image format that Pillow knows"
        if isinstance(error, DatasetError):  # of a shard
            reason = str(error).removesuffix(".")
        return Photo(fault="image-unreadable", values={"path": path, "reason": reason})


def read_photos(findings: Findings, title: str) -> dict[int, Photo]:
    """Return {row: what its file holds} of the images, with a progress bar on a terminal if there are many."""
    paths = image_paths(findings)
    hidden = None if len(paths) >= _LONG else True
    with ThreadPoolExecutor(max_workers=usable_cpus()) as pool:  # decoding and hashing leave the interpreter free
        photos = pool.map(read_photo, paths.values())
        photos = tqdm(photos, total=len(paths), desc=f"images of {title}", unit=" images", disable=hidden)
        return dict(zip(paths, photos, strict=True))


def image_paths(findings: Findings) -> dict[int, str]:
    """Return {row: path} of the images that name a file."""
    root, images = str(findings.annotations.image_root), findings.annotations.images
    names = ((row, image.get("file_name")) for row, image in enumerate(images) if isinstance(image, dict))
    return {row: join_image(root, name) for row, name in names if isinstance(name, str) and name}


def check_photos(findings: Findings, photos: dict[int, Photo]) -> None:
    """Add what is wrong with the image files to `findings`."""
    for kind in ("image-missing", "image-unreadable", "image-large"):
        rows = [row for row, photo in photos.items() if photo.fault == kind]
        findings.add(kind, rows, **(photos[rows[0]].values if rows else {}))
    sound = {row: photo for row, photo in photos.items() if photo.fault is None}
    doubtful = _check_sizes(findings, sound)
    turned = [row for row, photo in sound.items() if photo.orientation not in (0, 1) and row not in doubtful]
    findings.add("image-turned", turned, orientation=sound[turned[0]].orientation if turned else 1)
    deep = [row for row, photo in sound.items() if photo.mode.startswith(_DEEP)]
    of_16_bits = [row for row in deep if sound[row].mode.startswith("I;16")]
    findings.add("image-16-bit", of_16_bits, highest=f"{sound[of_16_bits[0]].highest:g}" if of_16_bits else "")
    unknown = [row for row in deep if not sound[row].mode.startswith("I;16")]
    findings.add("image-white-unknown", unknown, mode=sound[unknown[0]].mode if unknown else "")


def _check_sizes(findings: Findings, photos: dict[int, Photo]) -> set[int]:
    """Add the images whose size is not the one in the annotations, and return their rows."""
    stated = {row: _stated_size(findings.annotations.images[row]) for row in photos}
    differing = [row for row, size in stated.items() if size is not None and size != photos[row].upright_size]
    turned = [row for row in differing if stated[row] == photos[row].size]
    other = [row for row in differing if stated[row] != photos[row].size]
    if other:
        size, found = photos[other[0]].upright_size, stated[other[0]]
        findings.add("image-other-size", other, size=_as_text(size), stated=_as_text(found))
    if turned:
        orientation, found = photos[turned[0]].orientation, stated[turned[0]]
        findings.add("image-orientation", turned, orientation=orientation, stated=_as_text(found))
    return set(differing)


def _stated_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Return width and height as the annotations state them, or None where they state none."""
    try:
        return int(float(image["width"])), int(float(image["height"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _as_text(size: Sequence[int] | None) -> str:
    return "x".join(map(str, size or ()))
