"""Dataset mapper with DETR's augmentation: one image's annotation record in, tensors out."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances
from omegaconf import ListConfig

from align_detr.data.fast_transforms import FastInput, apply_to_boxes, channels_first
from align_detr.data.images import read_image
from align_detr.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

CROP_PROBABILITY = 0.5
_THIN = 100  # ratio of sides from which resizing may leave less than a pixel
_MIN_SIDE = 1e-5  # pixels; detectron2's limit of an empty box


class DetrMapper:
    """From a record of a data set to the model's input: an augmented image as a tensor, with its boxes in training.

    augmentations: detectron2 augmentations, applied in order; None and [] leave images as they are.
    augmentations_with_crop: the list that replaces them for half of the training images (the official DETR recipe:
    resize and crop before the final resize). keep_boxes: give boxes in evaluation too, as a validation loss needs.
    white_level: the level of grey images with more than 8 bits that becomes 255, by default 65535 in 16-bit files.
    Training leaves out crowd regions, as DETR does, and boxes of which a crop leaves nothing; images without boxes
    stay. Random numbers come from numpy's global generator, as in detectron2, so that seeded workers repeat them.
    """

    boxes_only = True
    """It reads neither segmentations nor keypoints, so that loaders give it records without them. A subclass says so
    itself, or gets all.
    """

    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation] | None,
        augmentations_with_crop: Sequence[T.Augmentation] | None = None,
        is_train: bool,
        keep_boxes: bool = False,
        image_format: str = "RGB",
        white_level: float | None = None,
    ) -> None:
        if augmentations_with_crop is not None and not is_train:
            raise ConfigError(
                "dataloader.test.mapper has augmentations_with_crop, which is for training: remove it there."
            )
        self.is_train = is_train
        self.keep_boxes = keep_boxes or is_train
        self.image_format = image_format
        self.white_level = white_level
        self.augmentations = _augmentation_list(augmentations or ())
        self.augmentations_with_crop = (
            None if augmentations_with_crop is None else _augmentation_list(augmentations_with_crop)
        )
        mode = "training" if is_train else "evaluation"
        with_crop = self.augmentations_with_crop
        crop = "" if with_crop is None else f", or half of the time {with_crop.augs}"
        logger.info("Augmentations in %s: %s%s.", mode, self.augmentations.augs, crop)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map a record of detectron2's data set format; the record itself is not changed.

        Return its entries with `image` (3, H, W) uint8 in channels-last memory, `height` and `width` of the file, and
        in training or with `keep_boxes` also `instances` with gt_boxes (absolute xyxy in the augmented image) and
        gt_classes in place of `annotations`.
        Raise DatasetError for an image file that is missing, broken, too thin to be resized, of another size than its
        annotation states, or of grey levels whose white is not known.
        """
        record = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        aug_input = FastInput(read_image(record, self.image_format, self.white_level))
        transforms = self._augment(aug_input, record)
        image = aug_input.image
        record["image"] = channels_first(image)
        if self.keep_boxes:
            annotations = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
            record["instances"] = self._transform(record, annotations, transforms, image.shape[:2])
        return record

    def _transform(
        self,
        record: dict[str, Any],
        annotations: Sequence[dict[str, Any]],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        """Return the annotations in the augmented image (height, width): a subclass may read more than boxes."""
        return _transform_boxes(annotations, transforms, image_size)

    def _augment(self, aug_input: T.AugInput, record: dict[str, Any]) -> T.TransformList:
        try:
            return self._pick_augmentations()(aug_input)
        except ValueError as error:
            if max(record["width"], record["height"]) < _THIN * min(record["width"], record["height"]):
                raise
            raise DatasetError(
                f"The image file {record['file_name']} (image {record.get('image_id', '?')} of the data set) with "
                f"{record['width']}x{record['height']} pixels is too thin to be resized ({error}): crop the image, or "
                "remove it from the annotations."
            ) from error

    def _pick_augmentations(self) -> T.AugmentationList:
        if self.augmentations_with_crop is not None and np.random.rand() < CROP_PROBABILITY:
            return self.augmentations_with_crop
        return self.augmentations


def _augmentation_list(augmentations: Sequence[T.Augmentation]) -> T.AugmentationList:
    """Return the augmentations as one, with plain lists of sizes instead of a LazyConfig's slow ListConfigs."""
    for augmentation in augmentations:
        for name, value in vars(augmentation).items():
            if isinstance(value, ListConfig):
                setattr(augmentation, name, list(value))
    return T.AugmentationList(list(augmentations))


def _transform_boxes(
    annotations: Sequence[dict[str, Any]], transforms: T.TransformList, image_size: tuple[int, int]
) -> Instances:
    """Return the annotations in the augmented image (height, width), without boxes of which nothing is left."""
    height, width = image_size
    boxes = np.array([_absolute_xyxy(a) for a in annotations], dtype=np.float64).reshape(-1, 4)
    classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
    sound = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # a transform makes a negative side positive
    boxes, classes = boxes[sound], classes[sound]
    if len(boxes):
        boxes = apply_to_boxes(transforms, boxes)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > _MIN_SIDE).all(axis=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.as_tensor(boxes[kept], dtype=torch.float32))
    instances.gt_classes = torch.as_tensor(classes[kept])
    return instances


def _absolute_xyxy(annotation: dict[str, Any]) -> Sequence[float]:
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:  # 10 times faster than detectron2's way through a tensor
        x, y, width, height = annotation["bbox"]
        return x, y, x + width, y + height
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
