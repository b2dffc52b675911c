"""The built-in data sets "digits in photos" with exact masks: digits as things, the two photos as stuff.

Made at first use like `align_detr.data.digits`, in the forms of COCO: instances.json with masks of the digits, and
panoptic.json with a picture of segments per image.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_tools
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from align_detr.data.annotations import Annotations
from align_detr.data.digits import CLASSES, DigitsSpec, ensure_made
from align_detr.data.digits_scene import (
    IMAGE_SIZE,
    SPLITS,
    SceneSources,
    as_image,
    draw_digits,
    load_sources,
    photo_crop,
)
from align_detr.data.panoptic import as_picture, panoptic_metadata, read_panoptic
from align_detr.data.register import load_records
from align_detr.paths import cache_folder

VERSION = 1
"""Part of the folder's name: increase it with every change to the scenes, so that old files are not reused."""
STUFF = ["temple", "flower"]
"""The kinds of background: scikit-learn's photos, in the order of `load_sources`."""
_IMAGES = {"train": 2000, "val": 200}
_WHOLE = 1 / 3  # share of the scenes with one photo alone
_MAX_DISTANCE = 32.0  # pixels, of the line between two photos from the centre
_DATA_SEED = 1  # other scenes than those of the digits without masks


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment of a scene: class 0..9 of a digit, or 10, 11 of a photo, and its visible pixels (128, 128) bool."""

    label: int
    mask: np.ndarray

    @property
    def box(self) -> list[int]:
        """Box (x, y, width, height) around the visible pixels."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        return [
            int(columns[0]),
            int(rows[0]),
            int(columns[-1] - columns[0]) + 1,
            int(rows[-1] - rows[0]) + 1,
        ]


def render_panoptic(rng: np.random.Generator, sources: SceneSources) -> tuple[np.ndarray, list[Segment]]:
    """Draw one scene: the crops of one or both photos, divided by a straight line, with 2 to 8 digits.

    Return the RGB image (128, 128, 3) uint8 and its segments, digits in the order of drawing, then photos. Every pixel
    belongs to one segment: a later digit covers an earlier one where its ink is above the threshold, and both cover
    the photos.
    """
    crops = [photo_crop(rng, photo) for photo in sources.photos]
    second = _half_plane(rng)
    if rng.random() < _WHOLE:
        second[:] = rng.random() < 0.5
    canvas = np.where(second[..., None], crops[1], crops[0]).astype(np.float32)
    drawn = draw_digits(rng, canvas, sources)
    owner = np.where(second, -1, -2)
    for number, each in enumerate(drawn):
        owner[each.mask()] = number
    segments = [Segment(each.digit.label, owner == number) for number, each in enumerate(drawn)]
    segments += [Segment(len(CLASSES) + photo, owner == photo - 2) for photo in range(len(STUFF))]
    return as_image(rng, canvas, sources), [segment for segment in segments if segment.mask.any()]


def _half_plane(rng: np.random.Generator) -> np.ndarray:
    """Return the pixels on one side of a random line near the centre, (128, 128) bool."""
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(-_MAX_DISTANCE, _MAX_DISTANCE)
    along = np.arange(IMAGE_SIZE) + 0.5 - IMAGE_SIZE / 2
    return np.cos(angle) * along + np.sin(angle) * along[:, None] > distance


def ensure_digits_panoptic(spec: DigitsSpec, cache: Path) -> Path:
    """Make the split if it does not exist, and return its folder: instances.json, panoptic.json, images/, panoptic/.

    Raise DatasetError if the cache folder cannot be written.
    """
    return ensure_made(_folder(spec, cache), lambda folder: _write(spec, folder))


def _folder(spec: DigitsSpec, cache: Path) -> Path:
    return cache / f"digits-panoptic-v{VERSION}-{spec.split}-{spec.num_images}-{IMAGE_SIZE}px-seed{spec.seed}"


def _write(spec: DigitsSpec, folder: Path) -> None:
    """Draw every scene, and write image, picture of segments and both annotation files; instances.json comes last."""
    sources = load_sources(spec.split)
    (folder / "images").mkdir()
    (folder / "panoptic").mkdir()
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for index in range(spec.num_images):
        rng = np.random.default_rng([spec.seed, SPLITS.index(spec.split), index])
        pixels, segments = render_panoptic(rng, sources)
        name = f"{spec.split}_{index:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
        images.append({"id": index + 1, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE})
        objects += [
            _as_object(segment, index + 1, len(objects) + number)
            for number, segment in enumerate((s for s in segments if s.label < len(CLASSES)), start=1)
        ]
        numbers = sum((number * segment.mask for number, segment in enumerate(segments, start=1)))
        Image.fromarray(as_picture(np.asarray(numbers))).save(folder / "panoptic" / name, compress_level=1)
        infos = [_as_segment(segment, number) for number, segment in enumerate(segments, start=1)]
        panoptic.append({"image_id": index + 1, "file_name": name, "segments_info": infos})
    common = {"info": {"description": "digits in photos with masks, from scikit-learn's digits and sample photos"}}
    things, everything = CATEGORIES[: len(CLASSES)], CATEGORIES
    (folder / "panoptic.json").write_text(
        json.dumps({**common, "images": images, "annotations": panoptic, "categories": everything}), encoding="utf-8"
    )
    (folder / "instances.json").write_text(
        json.dumps({**common, "images": images, "annotations": objects, "categories": things}), encoding="utf-8"
    )


CATEGORIES: list[dict[str, Any]] = [
    {"id": label + 1, "name": name, "isthing": int(label < len(CLASSES))}
    for label, name in enumerate([*CLASSES, *STUFF])
]


def _as_segment(segment: Segment, number: int) -> dict[str, Any]:
    area = int(segment.mask.sum())
    return {"id": number, "category_id": segment.label + 1, "area": area, "bbox": segment.box, "iscrowd": 0}


def _as_object(segment: Segment, image: int, number: int) -> dict[str, Any]:
    encoded = mask_tools.encode(np.asfortranarray(segment.mask.astype(np.uint8)))
    mask = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    return {**_as_segment(segment, number), "image_id": image, "segmentation": mask}


def register_digits_panoptic(split: str, spec: DigitsSpec, cache: Path) -> None:
    """Register digits_masks_<split> (digits alone, for COCOEvaluator) and digits_panoptic_<split> in detectron2's
    catalogs. Both have the same images; their files are made when either is first read. Registering again changes
    nothing.
    """
    folder = _folder(spec, cache)
    files = {
        "json_file": str(folder / "instances.json"),
        "image_root": str(folder / "images"),
        "panoptic_json": str(folder / "panoptic.json"),
        "panoptic_root": str(folder / "panoptic"),
    }
    masks, panoptic = f"digits_masks_{split}", f"digits_panoptic_{split}"
    _register(masks, lambda: load_records(masks, _instances(ensure_digits_panoptic(spec, cache))))
    MetadataCatalog.get(masks).set(
        json_file=files["json_file"],
        image_root=files["image_root"],
        evaluator_type="coco",
        thing_classes=CLASSES,
        thing_dataset_id_to_contiguous_id={label + 1: label for label in range(len(CLASSES))},
    )
    _register(panoptic, lambda: _load_panoptic(panoptic, ensure_digits_panoptic(spec, cache)))
    MetadataCatalog.get(panoptic).set(
        **{key: value for key, value in files.items() if key != "json_file"},
        evaluator_type="coco_panoptic_seg",
        **panoptic_metadata(CATEGORIES),
    )


def _register(name: str, load: Callable[[], list[dict[str, Any]]]) -> None:
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, load)


def _instances(folder: Path) -> Annotations:
    """Return the split's digits with their masks."""
    path = folder / "instances.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = {key: content[key] for key in ("images", "annotations", "categories")}
    return Annotations(**parts, image_root=folder / "images", source=path)


def _load_panoptic(name: str, folder: Path) -> list[dict[str, Any]]:
    return read_panoptic(name, folder / "panoptic.json", folder / "images", folder / "panoptic")


def register_builtin_digits_panoptic() -> None:
    """Register digits_masks_{train,val} and digits_panoptic_{train,val} (2,000 and 200 images) in the cache folder."""
    for split, num_images in _IMAGES.items():
        spec = DigitsSpec(split=split, num_images=num_images, seed=_DATA_SEED)
        register_digits_panoptic(split, spec, cache_folder())
