"""The built-in data set "digits in photos": made at first use, kept as PNG files and COCO annotations in a cache."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from iopath.common.file_io import file_lock
from PIL import Image

from align_detr.data.coco import read_coco
from align_detr.data.digits_scene import IMAGE_SIZE, SPLITS, load_sources, render_scene
from align_detr.data.register import load_records
from align_detr.errors import DatasetError
from align_detr.paths import cache_folder

VERSION = 2
"""Part of the folder's name: increase it with every change to the scenes, so that old files are not reused."""
CLASSES = [str(digit) for digit in range(10)]
_IMAGES = {"train": 8000, "val": 400}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DigitsSpec:
    """One split of the data set: "train" or "val", number of images, seed of the scenes."""

    split: str
    num_images: int
    seed: int = 0

    def folder(self, cache: Path) -> Path:
        """Return the split's folder under the cache folder, whether it exists or not."""
        return cache / f"digits-v{VERSION}-{self.split}-{self.num_images}-{IMAGE_SIZE}px-seed{self.seed}"


def ensure_digits(spec: DigitsSpec, cache: Path) -> Path:
    """Make the split if it does not exist, and return its folder (instances.json and images/).

    Raise DatasetError if the cache folder cannot be written.
    """

    def write(folder: Path) -> None:
        logger.info("Making %d images of digits in photos (%s) in %s.", spec.num_images, spec.split, cache)
        (folder / "images").mkdir()
        coco = _write_images(spec, folder / "images")
        (folder / "instances.json").write_text(json.dumps(coco), encoding="utf-8")

    return ensure_made(spec.folder(cache), write)


def ensure_made(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill `folder`, unless it has an instances.json, and return it.

    Of several processes one makes it and the others wait; the folder appears whole or not at all. Raise DatasetError
    if it cannot be written.
    """
    if (folder / "instances.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if not (folder / "instances.json").is_file():
                _make(folder, write)
    except OSError as error:
        raise DatasetError(
            f"The digits data set cannot be written to {folder} ({error}): set ALIGN_DETR_CACHE to a writable folder, "
            "or remove an incomplete folder of that name."
        ) from error
    return folder


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    """Write into a temporary folder beside `folder`, then rename it."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)  # mkdtemp closes its folder to other users
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_images(spec: DigitsSpec, folder: Path) -> dict:
    """Draw every scene, save it as PNG and return the annotations in COCO's format."""
    sources = load_sources(spec.split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(spec.num_images):
        # one generator per image, so that an image depends on its index and not on how many there are
        rng = np.random.default_rng([spec.seed, SPLITS.index(spec.split), index])
        pixels, digits = render_scene(rng, sources)
        name = f"{spec.split}_{index:06d}.png"
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        images.append({"id": index + 1, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE})
        for digit in digits:
            x0, y0, x1, y1 = digit.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": digit.label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "source_digit": digit.source,
                }
            )
    return {
        "info": {"description": "digits in photos, made from scikit-learn's digits and sample photos"},
        "licenses": [],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
        "images": images,
        "annotations": annotations,
    }


def register_digits(name: str, spec: DigitsSpec, cache: Path) -> None:
    """Register a split in detectron2's catalogs under `name`.

    Its files are made when it is first read. Registering a name again changes nothing.
    """
    if name in DatasetCatalog.list():
        return
    folder = spec.folder(cache)
    json_file, image_root = str(folder / "instances.json"), str(folder / "images")

    def load() -> list[dict]:
        ensure_digits(spec, cache)
        return load_records(name, read_coco(json_file, image_root))

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        thing_classes=CLASSES,
        thing_dataset_id_to_contiguous_id={label + 1: label for label in range(len(CLASSES))},
    )


def register_builtin_digits() -> None:
    """Register digits_train (8,000 images) and digits_val (400 images) in the cache folder of the environment."""
    for split, num_images in _IMAGES.items():
        register_digits(f"digits_{split}", DigitsSpec(split=split, num_images=num_images), cache_folder())
