"""From annotations to detectron2's records: one dictionary per image, classes counted from 0."""

from collections.abc import Sequence
from typing import Any

import pycocotools.mask as mask_tools
from detectron2.structures import BoxMode

from align_detr.data.annotations import Annotations
from align_detr.data.shard_images import join_image

_KEPT = ("id", "bbox", "area", "iscrowd")


def _compressed(segmentation: Any) -> Any:
    """Return a segmentation with a run-length encoding in its compressed form."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        return mask_tools.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _on_pixel_centers(keypoints: Sequence[float]) -> list[float]:
    """Return keypoints (x, y, visibility), given as indices of pixels, as coordinates."""
    return [value + 0.5 if index % 3 != 2 else value for index, value in enumerate(keypoints)]


_OPTIONAL = {"segmentation": _compressed, "keypoints": _on_pixel_centers}


def class_indices(categories: Sequence[dict[str, Any]]) -> dict[Any, int]:
    """Return {id of a category: class of the model}, in the order of the ids."""
    return {id_: index for index, id_ in enumerate(sorted(category["id"] for category in categories))}


def in_order(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return repaired images in the order of their ids, as records are."""
    return sorted(images, key=lambda image: (isinstance(image["id"], str), image["id"]))


def to_records(annotations: Annotations) -> list[dict[str, Any]]:
    """Return the records of repaired annotations in detectron2's format, in the order of the images' ids.

    The objects of a record keep id, area and iscrowd, and segmentation and keypoints where they have them.
    """
    classes, root = class_indices(annotations.categories), str(annotations.image_root)
    objects: dict[Any, list[dict]] = {image["id"]: [] for image in annotations.images}
    for annotation in annotations.annotations:
        kept = {key: annotation[key] for key in _KEPT}
        for key, convert in _OPTIONAL.items():
            if annotation.get(key):
                kept[key] = convert(annotation[key])
        kept["category_id"] = classes[annotation["category_id"]]
        kept["bbox_mode"] = BoxMode.XYWH_ABS
        objects[annotation["image_id"]].append(kept)
    return [
        {
            "file_name": join_image(root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": objects[image["id"]],
        }
        for image in in_order(annotations.images)
    ]
