"""The base of the detectors, around the reading path of each: pixels, annotations, results."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.lazy_config import model_from_yacs
from align_detr.modeling.batching import targets_of_batch
from align_detr.modeling.half_precision import Float32PixelStatistics
from align_detr.modeling.meta_arch.release_reader import ReleaseReader
from align_detr.structures import Targets


class DetectorBase(ReleaseReader, Float32PixelStatistics):
    """Base of the registered detectors, whose `head` has the number of classes; published weights load as they are.

    `pixel_mean` and `pixel_std` are in the channel order and range of the images (RGB, 0 to 255).
    """

    head: nn.Module
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the constructor's arguments from a yacs config with the two keys of `align_detr.config`."""
        return model_from_yacs(cfg, cls)

    @property
    def device(self) -> torch.device:
        """Device of the model, to which images and targets are moved."""
        return self.pixel_mean.device

    @property
    def num_classes(self) -> int:
        """K, without "no object"."""
        return cast(int, self.head.num_classes)  # to nn.Module every attribute is a tensor or a module

    def targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Targets:
        """Return the annotations of a batch, on the model's device; raise DatasetError with the image's file name."""
        return targets_of_batch(batched_inputs, num_classes=self.num_classes, device=self.device)

    def normalize(self, image: Tensor) -> Tensor:
        """Move an image (3, h, w), 0 to 255, to the model's device; subtract the mean, divide by the deviation."""
        pixels = image.to(self.device, non_blocking=True)  # as bytes
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return (values - self.pixel_mean).div_(self.pixel_std)

    @staticmethod
    def results(
        detections: Sequence[Instances], batched_inputs: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Instances]]:
        """Scale detections from the size of each image as given to the `height` and `width` that its input asks for."""
        return [
            {"instances": detector_postprocess(r, x.get("height", r.image_size[0]), x.get("width", r.image_size[1]))}
            for r, x in zip(detections, batched_inputs, strict=True)
        ]
