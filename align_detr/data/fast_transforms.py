"""detectron2's transforms of 8-bit images, computed by torch: the same pixels, several times as fast."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, HFlipTransform, NoOpTransform, VFlipTransform
from PIL.Image import Resampling

_BILINEAR = Resampling.BILINEAR  # Pillow rounds bicubic weights in another way


class FastInput(T.AugInput):
    """An image (H, W, C) on its way through detectron2's augmentations: torch computes what it can compute equally.

    These are resizing, within a grey level of Pillow's, and horizontal flips of 8-bit images. All other transforms,
    those of users among them, are applied by themselves; between two of them the image is an ordinary array.
    """

    image: np.ndarray

    def transform(self, tfm: T.Transform) -> None:
        """Transform the image in place of what it was."""
        self.image = apply_to_image(tfm, self.image)


def apply_to_image(transform: T.Transform, image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) after a transform, or after a list of them."""
    if isinstance(transform, T.TransformList):
        for each in transform.transforms:
            image = apply_to_image(each, image)
        return image
    fast = _FAST.get(type(transform))  # a subclass may do anything
    if fast is None or image.dtype != np.uint8 or image.ndim != 3:
        return transform.apply_image(image)
    return fast(transform, image)


def apply_to_boxes(transforms: T.TransformList, boxes: np.ndarray) -> np.ndarray:
    """Return boxes (N, 4) xyxy after transforms: their two corners, where the edges stay parallel to the image's."""
    if not all(type(each) in _PARALLEL for each in transforms.transforms):
        return transforms.apply_box(boxes)
    corners = transforms.apply_coords(boxes.reshape(-1, 2).copy()).reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _resize(transform: T.ResizeTransform, image: np.ndarray) -> np.ndarray:
    size = (int(transform.new_h), int(transform.new_w))
    if transform.interp != _BILINEAR or image.shape[:2] != (transform.h, transform.w) or min(size) < 1:
        return transform.apply_image(image)
    # Channels last, as the image lies in memory: the kernel is several times as fast as on planes.
    pixels = torch.from_numpy(_owned(image))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True).numpy()[0]
    return np.ascontiguousarray(resized.transpose(1, 2, 0))


def _flip(_: HFlipTransform, image: np.ndarray) -> np.ndarray:
    return torch.from_numpy(_owned(image)).flip(1).numpy()


def channels_first(image: np.ndarray) -> torch.Tensor:
    """Return an image (H, W, C) as a tensor (C, H, W) that stays in channels-last memory, as the device can turn it."""
    return torch.from_numpy(_owned(image).transpose(2, 0, 1))


def _owned(image: np.ndarray) -> np.ndarray:
    """Return an array, or its copy where torch cannot share it: one that is read-only, reversed or part of another."""
    return image if image.flags.c_contiguous and image.flags.writeable else np.array(image, order="C")


_FAST: dict[type, Callable[[Any, np.ndarray], np.ndarray]] = {T.ResizeTransform: _resize, HFlipTransform: _flip}
_PARALLEL = {T.ResizeTransform, HFlipTransform, VFlipTransform, CropTransform, NoOpTransform}
