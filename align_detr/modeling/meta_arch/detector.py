"""What detectors have in common before and after their own path: pixels, annotations, results."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.lazy_config import model_from_yacs
from align_detr.modeling.batching import targets_of_batch
from align_detr.structures import Targets


class Detector(nn.Module):
    """Base of the registered detectors, which have a `head` that knows the number of classes.

    `pixel_mean` and `pixel_std` are in the channel order and range of the images (RGB, 0 to 255).
    """

    def __init__(self, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The constructor's arguments from a yacs config with the two keys of `align_detr.config`."""
        return model_from_yacs(cfg, cls)

    @property
    def device(self) -> torch.device:
        """Where the model is, and where images and targets are moved to."""
        return self.pixel_mean.device

    @property
    def num_classes(self) -> int:
        """K, without "no object"."""
        return self.head.num_classes

    def targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Targets:
        """The annotations of a batch, on the model's device; raises `DatasetError` with the image's file name."""
        return targets_of_batch(batched_inputs, num_classes=self.num_classes, device=self.device)

    def normalize(self, image: Tensor) -> Tensor:
        """(3, h, w), 0 to 255 -> the same on the model's device, less the mean, divided by the standard deviation."""
        return (image.to(self.device, non_blocking=True).float() - self.pixel_mean) / self.pixel_std

    @staticmethod
    def results(found: Sequence[Instances], batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detections in the images as they were given -> in images of the wanted `height` and `width`."""
        return [
            {"instances": detector_postprocess(r, x.get("height", r.image_size[0]), x.get("width", r.image_size[1]))}
            for r, x in zip(found, batched_inputs, strict=True)
        ]
