"""From annotations to detectron2's records: one dictionary per image, classes counted from 0."""

from typing import Any

from detectron2.structures import BoxMode

from align_detr.data.annotations import Annotations

_KEPT = ("id", "bbox", "area", "iscrowd", "segmentation", "keypoints")


def class_indices(annotations: Annotations) -> dict[Any, int]:
    """Return {id of a category: class of the model}, in the order of the ids."""
    return {id_: index for index, id_ in enumerate(sorted(category["id"] for category in annotations.categories))}


def to_records(annotations: Annotations) -> list[dict[str, Any]]:
    """Return the records of repaired annotations in detectron2's format, in the order of the images' ids.

    The objects of a record keep id, area and iscrowd, and segmentation and keypoints where they have them.
    """
    classes = class_indices(annotations)
    objects: dict[Any, list[dict]] = {image["id"]: [] for image in annotations.images}
    for annotation in annotations.annotations:
        kept = {key: annotation[key] for key in _KEPT if key in annotation}
        kept["category_id"] = classes[annotation["category_id"]]
        kept["bbox_mode"] = BoxMode.XYWH_ABS
        objects[annotation["image_id"]].append(kept)
    return [
        {
            "file_name": str(annotations.image_root / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": objects[image["id"]],
        }
        for image in sorted(annotations.images, key=lambda image: image["id"])
    ]
