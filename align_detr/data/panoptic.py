"""Panoptic annotations in COCO's form: a JSON file with the segments of each image, and a picture of them per image.

A segment's pixels have the colour (id mod 256, id div 256 mod 256, id div 65536); 0 is no segment.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from align_detr.data.annotations import Annotations
from align_detr.data.register import load_records
from align_detr.errors import DatasetError


def register_panoptic(
    name: str,
    *,
    panoptic_json: str | os.PathLike[str],
    panoptic_root: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
) -> None:
    """Register panoptic annotations in detectron2's catalogs; the file is read when the data set is loaded.

    The classes of a model are the things in the order of their ids, then the stuff, as in detectron2's COCO. The
    records have a box per segment, as every data set here, `pan_seg_file_name`, and each annotation its `segment_id`.
    Registering a name again changes nothing.
    """
    if name in DatasetCatalog.list():
        return
    DatasetCatalog.register(
        name, lambda: read_panoptic(name, Path(panoptic_json), Path(image_root), Path(panoptic_root))
    )
    MetadataCatalog.get(name).set(
        panoptic_json=str(panoptic_json),
        panoptic_root=str(panoptic_root),
        image_root=str(image_root),
        evaluator_type="coco_panoptic_seg",
    )


def read_panoptic(name: str, panoptic_json: Path, image_root: Path, panoptic_root: Path) -> list[dict[str, Any]]:
    """Return the records of the data set `name` from COCO's panoptic files, and set its classes.

    Raise DatasetError for a file that cannot be read or annotations that cannot be used.
    """
    content = read_panoptic_json(panoptic_json)
    categories = things_first(content["categories"])
    ranks = {category["id"]: rank for rank, category in enumerate(categories)}
    segments = [
        {**segment, "image_id": each["image_id"]} for each in content["annotations"] for segment in _segments(each)
    ]
    annotations = Annotations(
        images=content["images"],
        annotations=[
            {**segment, "id": number, "category_id": ranks.get(segment["category_id"], segment["category_id"])}
            for number, segment in enumerate(segments, start=1)
        ],
        categories=[{"id": rank, "name": category["name"]} for rank, category in enumerate(categories)],
        image_root=image_root,
        source=panoptic_json,
    )
    MetadataCatalog.get(name).set(**panoptic_metadata(content["categories"]))
    records = load_records(name, annotations)
    files = {each["image_id"]: str(panoptic_root / each["file_name"]) for each in content["annotations"]}
    for record in records:
        if record["image_id"] in files:
            record["pan_seg_file_name"] = files[record["image_id"]]
        for annotation in record["annotations"]:
            annotation["segment_id"] = segments[annotation["id"] - 1]["id"]
    return records


def read_panoptic_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of COCO's panoptic JSON file; raise DatasetError if it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"The panoptic annotations {path} cannot be read ({type(error).__name__}: {error}): correct the path or "
            "the file."
        ) from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise DatasetError(
            f"{path} lacks images, annotations or categories: give the file of COCO's panoptic annotations."
        )
    if any("segments_info" not in each for each in content["annotations"]):
        raise DatasetError(f"{path} has annotations without segments_info: give a panoptic file, not one of instances.")
    return content


def things_first(categories: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the categories in the order of a model's classes: things by id, then stuff by id."""
    return sorted(categories, key=lambda category: (not category["isthing"], category["id"]))


def panoptic_metadata(categories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return detectron2's metadata of panoptic classes: both lists of names have all classes, as in its standard form
    of COCO, and the ids of things and of stuff lead to their classes.
    """
    ordered = things_first(categories)
    names = [category["name"] for category in ordered]
    indices = {bool(kind): {c["id"]: k for k, c in enumerate(ordered) if bool(c["isthing"]) == kind} for kind in (0, 1)}
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_dataset_id_to_contiguous_id": indices[True],
        "stuff_dataset_id_to_contiguous_id": indices[False],
    }


def as_picture(ids: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, 3) uint8 of segment ids (H, W)."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the segment ids (H, W) int32 of a picture of segments; raise DatasetError if it cannot be read."""
    try:
        with Image.open(path) as stored:
            colours = np.asarray(stored.convert("RGB"), dtype=np.int32)
    except Exception as error:  # Pillow's decoders raise anything
        raise DatasetError(
            f"The picture of segments {path} cannot be read ({type(error).__name__}: {error}): complete the panoptic "
            "folder."
        ) from error
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]


def _segments(annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the segments of an image, each with a box."""
    return [{"iscrowd": 0, **segment} for segment in annotation["segments_info"]]
