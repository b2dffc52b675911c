"""Dataset mapper with DETR's augmentation: one image's annotation record in, tensors out."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances
from omegaconf import ListConfig
from PIL import UnidentifiedImageError

from align_detr.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

CROP_PROBABILITY = 0.5
_MIN_SIDE = 1e-5  # pixels; detectron2's limit of an empty box


class DetrMapper:
    """Reads an image, augments it and gives it to the model as an RGB tensor with its boxes.

    augmentations: detectron2 augmentations, applied in order. augmentations_with_crop: another list that takes their
    place for half of the training images (the official DETR recipe: resize and crop before the final resize).
    Training leaves crowd regions out (DETR does) and boxes of which a crop leaves nothing; an image without boxes is an
    ordinary one. Random numbers come from numpy's global generator, as in detectron2, so that seeding workers holds.
    """

    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        augmentations_with_crop: Sequence[T.Augmentation] | None = None,
        is_train: bool,
        image_format: str = "RGB",
    ) -> None:
        if augmentations_with_crop is not None and not is_train:
            raise ConfigError("augmentations_with_crop is for training: leave it out of dataloader.test.mapper.")
        self.is_train = is_train
        self.image_format = image_format
        self.augmentations = _augmentation_list(augmentations)
        self.augmentations_with_crop = (
            None if augmentations_with_crop is None else _augmentation_list(augmentations_with_crop)
        )
        mode = "training" if is_train else "evaluation"
        with_crop = self.augmentations_with_crop
        crop = "" if with_crop is None else f", or half of the time {with_crop.augs}"
        logger.info("Augmentations in %s: %s%s", mode, self.augmentations.augs, crop)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps a record of detectron2's data set format; the record itself stays as it is.

        Returns its entries with `image` (3, H, W) uint8, `height` and `width` of the file, and in training `instances`
        with gt_boxes (absolute xyxy in the augmented image) and gt_classes in place of `annotations`.
        Raises DatasetError for an image file that is missing, broken or of another size than its annotation states.
        """
        record = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        image = _read_image(record, self.image_format)
        aug_input = T.AugInput(image)
        transforms = self._pick_augmentations()(aug_input)
        image = aug_input.image
        record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if self.is_train:
            annotations = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
            record["instances"] = _transform_boxes(annotations, transforms, image.shape[:2])
        return record

    def _pick_augmentations(self) -> T.AugmentationList:
        if self.augmentations_with_crop is not None and np.random.rand() < CROP_PROBABILITY:
            return self.augmentations_with_crop
        return self.augmentations


def _augmentation_list(augmentations: Sequence[T.Augmentation]) -> T.AugmentationList:
    """Augmentations in order; their lists of sizes, which a LazyConfig makes slow ListConfigs, become plain lists."""
    for augmentation in augmentations:
        for name, value in vars(augmentation).items():
            if isinstance(value, ListConfig):
                setattr(augmentation, name, list(value))
    return T.AugmentationList(list(augmentations))


def _read_image(record: dict[str, Any], image_format: str) -> np.ndarray:
    """Reads the record's file as (H, W, 3) uint8 and completes its height and width."""
    file_name = record["file_name"]
    entry = f"image {record.get('image_id', '?')} of the data set"
    try:
        image = detection_utils.read_image(file_name, format=image_format)
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image file {file_name} ({entry}) does not exist: complete the image folder, or remove the image from "
            "the annotations."
        ) from error
    except Exception as error:  # Pillow raises whatever its decoders raise, SyntaxError and struct.error among them
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, UnidentifiedImageError):  # its own text shows the open file as a Python object
            reason = "it is in no image format that Pillow knows"
        raise DatasetError(
            f"The image file {file_name} ({entry}) cannot be read ({reason}): replace the file, "
            "or remove the image from the annotations."
        ) from error
    try:
        detection_utils.check_image_size(record, image)
    except detection_utils.SizeMismatchError as error:
        raise DatasetError(
            f"The image file {file_name} ({entry}) is {image.shape[1]}x{image.shape[0]} pixels, but its annotation "
            f"says {record['width']}x{record['height']}: correct width and height there, or restore the image."
        ) from error
    return image


def _transform_boxes(
    annotations: Sequence[dict[str, Any]], transforms: T.TransformList, image_size: tuple[int, int]
) -> Instances:
    """Carries annotations into the augmented image (height, width); boxes of which nothing is left are removed."""
    height, width = image_size
    boxes = np.array([_absolute_xyxy(a) for a in annotations], dtype=np.float64).reshape(-1, 4)
    classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
    sound = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # a transform would turn a negative side into a positive one
    boxes, classes = boxes[sound], classes[sound]
    if len(boxes):
        boxes = transforms.apply_box(boxes)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > _MIN_SIDE).all(axis=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.as_tensor(boxes[kept], dtype=torch.float32))
    instances.gt_classes = torch.as_tensor(classes[kept])
    return instances


def _absolute_xyxy(annotation: dict[str, Any]) -> Sequence[float]:
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:  # without detectron2's detour through a tensor: 10x faster
        x, y, width, height = annotation["bbox"]
        return x, y, x + width, y + height
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
