"""The mapper that reads masks as well, for detectors that segment; box detectors pay nothing for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_tools
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from align_detr.data.check_objects import is_sound_segmentation
from align_detr.data.mapper import DetrMapper
from align_detr.data.panoptic import read_picture
from align_detr.errors import DatasetError


class MaskMapper(DetrMapper):
    """`DetrMapper` whose `instances` have `gt_masks`, BitMasks (N, H, W) in the augmented image, beside the boxes.

    The masks come from the annotations' `segmentation` (polygons, or run-length encodings), or, in records with
    `pan_seg_file_name` (see `register_panoptic`), from the picture of segments. They are transformed by nearest
    neighbour. An object of whose mask a crop leaves no pixel is left out, even if it leaves a part of the box; a box
    that a crop cuts is the part of the whole box, as in DETR, and not the box around what is left of the mask.
    """

    boxes_only = False
    """It reads segmentations, so that loaders give it whole records."""

    def _transform(
        self,
        record: dict[str, Any],
        annotations: Sequence[dict[str, Any]],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        """Return the annotations in the augmented image (height, width).

        Raise DatasetError for an object without a mask, with one that cannot be read, or with one of another size than
        the image.
        """
        numbered = [{**annotation, "category_id": number} for number, annotation in enumerate(annotations)]
        instances = super()._transform(record, numbered, transforms, image_size)
        kept = [annotations[number] for number in instances.gt_classes.tolist()]
        size = (record["height"], record["width"])
        if "pan_seg_file_name" in record:
            masks = _of_picture(record["pan_seg_file_name"], kept, size, transforms)
        else:
            masks = [transforms.apply_segmentation(_of_annotation(each, record, size)) for each in kept]
        stacked = np.stack(masks).astype(bool) if masks else np.zeros((0, *image_size), dtype=bool)
        instances.gt_classes = torch.as_tensor(np.array([each["category_id"] for each in kept], dtype=np.int64))
        instances.gt_masks = BitMasks(torch.from_numpy(np.ascontiguousarray(stacked)))
        return instances[instances.gt_masks.nonempty()]


def _of_annotation(annotation: dict[str, Any], record: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return an object's mask in the stored image of `size` (height, width): uint8."""
    segmentation = _checked_segmentation(annotation, record)
    if isinstance(segmentation, dict):
        encoded = segmentation
        if isinstance(segmentation["counts"], list):
            encoded = mask_tools.frPyObjects(segmentation, *segmentation["size"])
    else:
        encoded = mask_tools.merge(mask_tools.frPyObjects(segmentation, *size))
    mask = mask_tools.decode(encoded)
    if mask.shape != size:
        raise DatasetError(
            f"The mask of the {_name(annotation)} has the size {mask.shape}, but the image file "
            f"{record['file_name']} has {size} (height, width): correct the segmentation."
        )
    return mask


def _checked_segmentation(annotation: dict[str, Any], record: dict[str, Any]) -> Any:
    """Return a segmentation that can be read, in lists; raise DatasetError if there is none."""
    segmentation = annotation.get("segmentation")
    if segmentation is None or (isinstance(segmentation, (list, tuple, dict)) and not segmentation):
        raise DatasetError(
            f"The {_name(annotation)} of the image file {record['file_name']} has no segmentation, which MaskMapper "
            "reads: add it, or remove the annotation."
        )
    if is_sound_segmentation(segmentation):
        return segmentation
    segmentation = _in_lists(segmentation)  # arrays and tuples of records that no reader of files has made
    if not is_sound_segmentation(segmentation):
        raise DatasetError(
            f"The segmentation of the {_name(annotation)} of the image file {record['file_name']} is neither a list of "
            "polygons (lists of x and y of at least three points) nor a run-length encoding that fits its size: "
            "correct it, or remove the annotation."
        )
    return segmentation


def _name(annotation: dict[str, Any]) -> str:
    return f"annotation {annotation['id']}" if "id" in annotation else f"annotation with the bbox {annotation['bbox']}"


def _in_lists(value: Any) -> Any:
    """Return a segmentation with lists in place of tuples, and of arrays inside."""
    if isinstance(value, dict):
        return {key: _in_lists(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [each.tolist() if isinstance(each, (np.ndarray, np.generic)) else _in_lists(each) for each in value]
    return value


def _of_picture(
    path: str, annotations: Sequence[dict[str, Any]], size: tuple[int, int], transforms: T.TransformList
) -> list[np.ndarray]:
    """Return the masks of the annotations, bool, from the picture of segments, which is transformed once."""
    ids = read_picture(path)
    if ids.shape != size:
        raise DatasetError(
            f"The picture of segments {path} has the size {ids.shape}, but its image has {size} (height, width): "
            "complete the panoptic folder."
        )
    order, ranks = np.unique(ids, return_inverse=True)
    ranks = transforms.apply_segmentation(ranks.reshape(size).astype(np.uint8 if len(order) < 256 else np.int32))
    rank_of = {int(each): rank for rank, each in enumerate(order)}
    return [ranks == rank_of.get(int(annotation["segment_id"]), -1) for annotation in annotations]
