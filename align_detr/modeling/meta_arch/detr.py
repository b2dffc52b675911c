"""DETR, and the one reading path of every set-prediction detector: backbone, neck, encoder, queries, decoder, criterion
or detections.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.config import model_from_yacs
from align_detr.modeling.batching import features_of_each_size, features_of_padded_batch, targets_of_batch
from align_detr.structures import Memory, Predictions, Targets


@META_ARCH_REGISTRY.register()
class DETR(nn.Module):
    """End-to-end object detection with transformers (Carion et al. 2020): a set of queries, matched one-to-one to the
    objects.

    The one class behind all detectors of this family; the parts make the difference. `proposals` is the first stage of
    a two-stage detector. `pixel_mean` and `pixel_std` are in the channel order and range of the images (RGB, 0 to
    255). In training, `forward` returns weighted losses by name; otherwise detections.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        encoder: nn.Module,
        queries: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        criterion: nn.Module,
        postprocess: nn.Module,
        proposals: nn.Module | None = None,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.proposals = proposals
        self.queries = queries
        self.decoder = decoder
        self.head = head
        self.criterion = criterion
        self.postprocess = postprocess
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

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """detectron2's inputs: `image` (3, h, w) RGB, `height` and `width` of the output, and in training `instances`
        with `gt_boxes`, `gt_classes`. Raises `DatasetError` for training input without images or annotations.
        """
        if not batched_inputs and not self.training:
            return []
        targets = self.targets(batched_inputs) if self.training else None
        images = [self.normalize(x["image"]) for x in batched_inputs]
        image_sizes = [(x.shape[-2], x.shape[-1]) for x in images]
        memory = self.encoder(self.extract_features(images))
        if targets is not None:
            return self.criterion(self.predict(memory, targets), targets)
        results = self.postprocess(self.predict(memory)["main"], image_sizes)
        return [
            {"instances": detector_postprocess(r, x.get("height", r.image_size[0]), x.get("width", r.image_size[1]))}
            for r, x in zip(results, batched_inputs, strict=True)
        ]

    def predict(self, memory: Memory, targets: Targets | None = None) -> dict[str, Predictions]:
        """All prediction sets by name, from encoded tokens; `targets` are given in training, for denoising queries."""
        proposals = None if self.proposals is None else self.proposals(memory)
        sets = self.decoder(self.queries(memory, proposals, targets), memory, self.head)
        return sets if proposals is None else {**sets, "enc": proposals.predictions}

    def targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Targets:
        """The annotations of a batch, on the model's device; raises `DatasetError` with the image's file name."""
        return targets_of_batch(batched_inputs, num_classes=self.num_classes, device=self.device)

    def normalize(self, image: Tensor) -> Tensor:
        """(3, h, w), 0 to 255 -> the same on the model's device, with mean 0 and standard deviation 1 over ImageNet."""
        return (image.to(self.device, non_blocking=True).float() - self.pixel_mean) / self.pixel_std

    def extract_features(self, images: Sequence[Tensor]) -> Memory:
        """Tokens, before the encoder, of normalised (3, h, w) images of any sizes; in evaluation they do not depend on
        the rest of the batch.
        """
        extract = features_of_padded_batch if self.training else features_of_each_size
        features, padded_size = extract(self.backbone, images)
        return self.neck(features, [(x.shape[-2], x.shape[-1]) for x in images], padded_size)
