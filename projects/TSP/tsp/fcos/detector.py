"""The TSP-FCOS detector: points that an FCOS-like head proposes are encoded together and become predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.batching import features_of_padded_batch, one_size_at_a_time
from align_detr.modeling.half_precision import in_precision_of_weights
from align_detr.modeling.meta_arch.detector import DetectorBase
from align_detr.projects.tsp.fcos.assign import PointAssigner
from align_detr.projects.tsp.fcos.head import PointHead, PointPredictions
from align_detr.projects.tsp.fcos.losses import PointCriterion
from align_detr.projects.tsp.fcos.points import Points, PointTowers
from align_detr.projects.tsp.fcos.postprocess import PointPostprocess
from align_detr.projects.tsp.fcos.selection import FoIEncoding, FoIs, FoISelection


@META_ARCH_REGISTRY.register()
class TSPFCOS(DetectorBase):
    """Transformer-based set prediction on FCOS (Sun et al. 2021): no decoder and no learned queries.

    backbone (with FPN) -> points -> selection -> encoding -> encoder -> head. `pixel_mean` and `pixel_std` are in the
    channel order and range of the images (RGB, 0 to 255).
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        points: PointTowers,
        assigner: PointAssigner,
        selection: FoISelection,
        encoding: FoIEncoding,
        encoder: nn.Module,
        head: PointHead,
        criterion: PointCriterion,
        postprocess: nn.Module,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        _check_levels(points, assigner, encoding, head)
        self.backbone = backbone
        self.points = points
        self.assigner = assigner
        self.selection = selection
        self.encoding = encoding
        self.encoder = encoder
        self.head = head
        self.criterion = criterion
        self.postprocess = postprocess

    @in_precision_of_weights
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Return weighted losses by name in training, otherwise detections.

        The inputs are detectron2's: `image` (3, h, w) RGB, `height` and `width` of the output, and in training
        `instances` with `gt_boxes` and `gt_classes`. Raise DatasetError for training input without images or
        annotations.
        """
        if not self.training:
            return one_size_at_a_time(
                [x["image"] for x in batched_inputs], lambda indices: self._detect([batched_inputs[i] for i in indices])
            )
        targets = self.targets(batched_inputs)
        images = [self.normalize(x["image"]) for x in batched_inputs]
        points = self.extract_points(images)
        assignment = self.assigner(points, targets)
        fois = self.selection(points, assignment.owner >= 0)
        return self.criterion(self.predict(points, fois), points, assignment, targets)

    def extract_points(self, images: Sequence[Tensor]) -> Points:
        """Return all points of normalised (3, h, w) images, padded to the largest."""
        features, padded_size = features_of_padded_batch(self.backbone, images)
        return self.points(features, [(x.shape[-2], x.shape[-1]) for x in images], padded_size)

    def predict(self, points: Points, fois: FoIs) -> PointPredictions:
        """Encode the selected points together and return their predictions."""
        return self.head(self.encoder(self.encoding(points, fois)).tokens, fois)

    def detect_padded(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels as tensors, for export: normalised images (B, 3, H, W), sizes (B, 2)."""
        points = self.points(self.backbone(images), sizes, (images.shape[-2], images.shape[-1]))
        postprocess = cast(PointPostprocess, self.postprocess)
        return postprocess.of_padded(self.predict(points, self.selection(points)), len(self.points.strides))

    def _detect(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Return the detections of images of one size.

        The towers' GroupNorm averages over whole maps, so padding to another image's size would change the detections.
        """
        points = self.extract_points([self.normalize(x["image"]) for x in batched_inputs])
        return self.results(self.postprocess(self.predict(points, self.selection(points))), batched_inputs)


def _check_levels(points: PointTowers, assigner: PointAssigner, encoding: FoIEncoding, head: PointHead) -> None:
    """Raise ConfigError unless all parts have the same levels: on a GPU, one level too many ends the process."""
    levels = len(points.strides)
    if len(assigner.sizes) != levels - 1:
        raise ConfigError(
            f"model.assigner.sizes has {len(assigner.sizes)} bounds for the {levels} levels of model.points: give one "
            "bound between each level and the next."
        )
    for name, count in {"encoding": len(encoding.level_embed), "head": len(head.scales)}.items():
        if count != levels:
            raise ConfigError(
                f"model.{name}.num_levels is {count}, but model.points has {levels} levels: set it to {levels}."
            )
