"""The registered detectors that segment."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.batching import features_of_each_size, features_of_padded_batch
from align_detr.modeling.half_precision import in_precision_of_weights
from align_detr.modeling.meta_arch import DETR, DeformableDETR
from align_detr.projects.detr_segmentation.features import MaskFeatures
from align_detr.projects.detr_segmentation.masks import HiddenPredictions, MaskBranch, reading, with_masks
from align_detr.projects.detr_segmentation.panoptic import PanopticMerge
from align_detr.structures import MAIN, PROPOSED, Memory, Predictions, Targets

_QUERIES = "mask_queries"


@META_ARCH_REGISTRY.register()
class SegmentationDETR(DETR):
    """DETR for segmentation (Carion et al. 2020, section 4.4): any detector of the family with a mask per query.

    `masks` makes the masks of queries of the set `main`. Detections get `pred_masks` (N, H, W) bool, logits above 0
    after bilinear resizing to the output. With `panoptic`, outputs also have detectron2's `panoptic_seg`, and their
    `instances` are things alone. Add `MaskFocalLoss` and `DiceLoss` to the criterion; the mapper is a `MaskMapper`.
    The other parts are named as in the detector, whose weights load, and which its own weights load into.
    """

    @configurable
    def __init__(self, *, masks: MaskBranch, panoptic: PanopticMerge | None = None, **parts: Any) -> None:
        super().__init__(**parts)
        self.masks = masks
        self.panoptic = panoptic

    @in_precision_of_weights
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return losses, or detections with masks in the size of the output: see `DETR.forward`."""
        if self.training or not batched_inputs:
            return super().forward(batched_inputs)
        images = [self.normalize(x["image"]) for x in batched_inputs]
        sets, features = self._predict_images(images, None)
        preds = sets[MAIN]
        detections = self.postprocess(preds, features.image_sizes)
        for found, queries in zip(detections, query_numbers(self.postprocess, preds, len(images)), strict=True):
            found.set(_QUERIES, queries)
        outputs = self.results(detections, batched_inputs)
        return [self._segment(output, preds, features, index) for index, output in enumerate(outputs)]

    def predict_in_training(self, images: Sequence[Tensor], targets: Targets) -> dict[str, Predictions]:
        """Return all prediction sets by name, of which `main` has masks."""
        sets, features = self._predict_images(images, targets)
        return {**sets, MAIN: with_masks(sets[MAIN], self.masks, features)}

    def predict(self, memory: Memory, targets: Targets | None = None) -> dict[str, Predictions]:
        """Return all prediction sets by name, with what the head read."""
        proposals = None if self.proposals is None else self.proposals(memory)
        sets = self.decoder(self.queries(memory, proposals, targets), memory, reading(self.head))
        return sets if proposals is None else {**sets, PROPOSED: proposals.predictions}

    def _predict_images(
        self, images: Sequence[Tensor], targets: Targets | None
    ) -> tuple[dict[str, Predictions], MaskFeatures]:
        """Return all prediction sets of normalised (3, h, w) images, and what their masks are made of."""
        extract = features_of_padded_batch if self.training else features_of_each_size
        maps, padded_size = extract(self.backbone, images)
        sizes = [(x.shape[-2], x.shape[-1]) for x in images]
        projected = self.neck(maps, sizes, padded_size)
        encoded = self.encoder(projected)
        strides = [shape.stride for shape in cast(Backbone, self.backbone).output_shape().values()]
        features = self.masks.features(maps, projected, encoded, sizes, padded_size, strides)
        return self.predict(encoded, targets), features

    def _segment(
        self, output: Mapping[str, Instances], preds: Predictions, features: MaskFeatures, index: int
    ) -> dict[str, Any]:
        """Return the output of image number `index` with masks."""
        if not isinstance(preds, HiddenPredictions):
            raise ConfigError("The decoder does not hand on the head's set: use a decoder of this library.")
        instances, hidden, boxes = output["instances"], preds.hidden[index], preds.boxes[-1, index]
        segmented: dict[str, Any] = {}
        if self.panoptic is not None:
            instances = instances[instances.pred_classes < self.panoptic.num_things]
            queries, scores, classes = self.panoptic.select(preds, index)
            logits = self.masks.of_image(features, hidden[queries], boxes[queries], index, instances.image_size)
            segmented["panoptic_seg"] = self.panoptic(logits, scores, classes)
        queries = instances.get(_QUERIES)
        instances.pred_masks = self.masks.masks_of_image(features, hidden, boxes, queries, index, instances.image_size)
        instances.remove(_QUERIES)
        return {"instances": instances, **segmented}


@META_ARCH_REGISTRY.register()
class SegmentationDeformableDETR(DeformableDETR, SegmentationDETR):
    """Deformable-DETR and its descendants (DINO, Align-DINO, DAB-Deformable-DETR, ...) with a mask per query.

    In evaluation one image size passes at a time, as in `DeformableDETR`.
    """


@torch.no_grad()
def query_numbers(postprocess: nn.Module, preds: Predictions, num_images: int) -> list[Tensor]:
    """Return the query, int64, of each detection that `postprocess` makes of `preds`, image by image.

    A postprocess selects by scores and hands boxes on: here the boxes say their query's number, on images of 1 pixel.
    """
    number = torch.arange(preds.boxes.shape[2], device=preds.boxes.device, dtype=torch.float32)
    boxes = torch.stack([number, number, torch.zeros_like(number), torch.zeros_like(number)], dim=-1)
    numbered = dataclasses.replace(preds, boxes=boxes.expand_as(preds.boxes))
    return [found.pred_boxes.tensor[:, 0].long() for found in postprocess(numbered, [(1, 1)] * num_images)]
