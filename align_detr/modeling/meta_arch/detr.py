"""DETR, and the one reading path of every set-prediction detector: backbone, neck, encoder, queries, decoder, and
criterion or detections.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.checks import check_parts
from align_detr.modeling.batching import features_of_each_size, features_of_padded_batch
from align_detr.modeling.half_precision import in_precision_of_weights
from align_detr.modeling.meta_arch.detector import DetectorBase
from align_detr.structures import MAIN, PROPOSED, Memory, Predictions, SkippedImages, Targets


@META_ARCH_REGISTRY.register()
class DETR(DetectorBase):
    """End-to-end object detection with transformers (Carion et al. 2020): a set of queries, matched one-to-one to the
    objects.

    The one class behind all detectors of this family, which differ in their parts. `proposals` is the first stage of a
    two-stage detector. `pixel_mean` and `pixel_std` are in the channel order and range of the images (RGB, 0 to 255).
    In training, `forward` returns weighted losses by name; otherwise detections. Raise ConfigError for parts that do
    not agree.
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
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.proposals = proposals
        self.queries = queries
        self.decoder = decoder
        self.head = head
        self.criterion = criterion
        self.postprocess = postprocess
        check_parts(self)

    @in_precision_of_weights
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Return losses or detections of detectron2's inputs: `image` (3, h, w) RGB, `height` and `width` of the output
        and, in training, `instances` with `gt_boxes`, `gt_classes`.

        Raise DatasetError for training input without images or annotations.
        """
        if not batched_inputs and not self.training:
            return []
        targets = self.targets(batched_inputs) if self.training else None
        images = [self.normalize(x["image"]) for x in batched_inputs]
        image_sizes = [(x.shape[-2], x.shape[-1]) for x in images]
        if targets is not None:
            return self.losses(images, targets)
        memory = self.encoder(self.extract_features(images))
        return self.results(self.postprocess(self.predict(memory)[MAIN], image_sizes), batched_inputs)

    def losses(self, images: Sequence[Tensor], targets: Targets) -> dict[str, Tensor]:
        """Return weighted losses by name, of normalised (3, h, w) images.

        If the matcher skips an image (`on_nonfinite="skip"`), the step starts again with a blank one instead, whose
        queries take no part: a gradient of zero times an activation that is NaN would be NaN in every weight.
        """
        targets = dataclasses.replace(targets, restartable=True)
        while True:
            try:
                return self.criterion(self.predict_in_training(images, targets), targets)
            except SkippedImages as request:
                skipped = request.images
            images = [torch.zeros_like(x) if b in skipped else x for b, x in enumerate(images)]
            targets = targets.without_images(skipped)

    def predict_in_training(self, images: Sequence[Tensor], targets: Targets) -> dict[str, Predictions]:
        """Return all prediction sets by name, of normalised (3, h, w) images, as the criterion reads them."""
        return self.predict(self.encoder(self.extract_features(images)), targets)

    def predict(self, memory: Memory, targets: Targets | None = None) -> dict[str, Predictions]:
        """Return all prediction sets by name, from encoded tokens; `targets` are for denoising queries, in training."""
        proposals = None if self.proposals is None else self.proposals(memory)
        sets = self.decoder(self.queries(memory, proposals, targets), memory, self.head)
        return sets if proposals is None else {**sets, PROPOSED: proposals.predictions}

    def extract_features(self, images: Sequence[Tensor]) -> Memory:
        """Return the tokens, before the encoder, of normalised (3, h, w) images of any sizes; in evaluation they do not
        depend on the rest of the batch.
        """
        extract = features_of_padded_batch if self.training else features_of_each_size
        features, padded_size = extract(self.backbone, images)
        return self.neck(features, [(x.shape[-2], x.shape[-1]) for x in images], padded_size)
