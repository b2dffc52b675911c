"""TSP-RCNN's region heads, a replacement for detectron2's."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from detectron2.config import LazyCall as L
from detectron2.config import configurable, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from align_detr import model_zoo
from align_detr.errors import ConfigError, DatasetError
from align_detr.modeling.criterion import SetCriterion
from align_detr.projects.tsp.checks import check_every_image_counts
from align_detr.projects.tsp.nms import kept_by_nms
from align_detr.projects.tsp.rcnn.losses import ProposalCriterion
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes, ClassBoxes, Classifier
from align_detr.projects.tsp.rcnn.rois import RoIOutputs, RoIPredictions, RoIs, pad_images
from align_detr.projects.tsp.rcnn.sampling import BACKGROUND, ProposalSampler, assign_objects
from align_detr.structures import MAIN, Targets


class RoIStage(nn.Module):
    """A transformer over the proposals with its classifier and boxes.

    In a later stage, a refined proposal belongs to the object of largest IoU if that reaches `iou_threshold`.
    """

    def __init__(
        self, *, transformer: nn.Module, classifier: Classifier, boxes: ClassBoxes, iou_threshold: float = 0.5
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.classifier = classifier
        self.boxes = boxes
        self.iou_threshold = iou_threshold

    def forward(self, pooled: Tensor, rois: RoIs, previous: RoIOutputs | None = None) -> RoIOutputs:
        """Classify and refine regions (N, C', r, r) of all images, concatenated; `previous` is the stage before."""
        hidden = self.transformer(pooled, rois, None if previous is None else previous.hidden)
        return RoIOutputs(
            hidden=hidden, logits=self.classifier(hidden), deltas=self.boxes(hidden), coder=self.boxes.coder
        )


class ClassWiseNMS(nn.Module):
    """Class-wise NMS, then the `num_detections` highest scores above `score_threshold`.

    An `nms_threshold` of 1 suppresses nothing.
    """

    def __init__(self, *, nms_threshold: float = 0.7, score_threshold: float = 0.0, num_detections: int = 100) -> None:
        super().__init__()
        self.nms_threshold = nms_threshold
        self.score_threshold = score_threshold
        self.num_detections = num_detections

    def forward(self, probabilities: Tensor, boxes: Tensor, rois: RoIs) -> list[Instances]:
        """Return `pred_boxes` inside the image, `scores` (descending) and `pred_classes` of each image.

        probabilities (B, Q, K + 1); boxes (B, Q, D, 4) absolute xyxy.
        """
        detections, _ = fast_rcnn_inference(
            [x[:n].flatten(1) for x, n in zip(boxes, rois.counts, strict=True)],
            [x[:n] for x, n in zip(probabilities, rois.counts, strict=True)],
            rois.image_sizes,
            self.score_threshold,
            self.nms_threshold,
            self.num_detections,
        )
        return detections

    def of_padded(self, probabilities: Tensor, boxes: Tensor, rois: RoIs) -> tuple[Tensor, Tensor, Tensor]:
        """Return `forward`'s detections as tensors, for export: boxes (B, N, 4), scores (B, N), labels (B, N). Where an
        image has fewer, score and box are zeros.
        """
        scores = probabilities[..., :-1]  # (B, Q, K)
        scores = scores.masked_fill(~(rois.valid[..., None] & (scores > self.score_threshold)), 0.0)
        boxes = boxes.clamp(min=0.0).minimum(rois.sides[:, :, None])
        boxes = boxes.expand(-1, -1, scores.shape[2], -1).flatten(1, 2)  # (B, Q * K, 4)
        labels = torch.arange(scores.shape[2], device=scores.device).expand_as(scores).flatten(1)
        scores = scores.flatten(1)
        if self.nms_threshold < 1:
            scores = scores * kept_by_nms(boxes, scores, labels, self.nms_threshold).to(scores.dtype)
        scores, index = scores.topk(torch.sym_min(self.num_detections, scores.shape[1]), dim=1)
        found = boxes.gather(1, index[..., None].expand(-1, -1, 4)) * (scores > 0)[..., None].to(boxes.dtype)
        return found, scores, labels.gather(1, index)


@ROI_HEADS_REGISTRY.register()
class TSPROIHeads(nn.Module):
    """Set prediction on the proposals of an R-CNN (TSP-RCNN, Sun et al. 2021, section 4.2).

    A drop-in for detectron2's ROI heads inside `GeneralizedRCNN`, with any proposal generator. Several `stages` refine
    iteratively: each but the last needs class-agnostic boxes, which are the proposals of the next. `criterion` is the
    set loss, and `box_criterion` adds the losses on boxes; both get {"main": RoIPredictions}.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        in_features: Sequence[str],
        pooler: nn.Module,
        sampler: ProposalSampler,
        stages: Sequence[RoIStage],
        criterion: SetCriterion,
        box_criterion: ProposalCriterion,
        postprocess: nn.Module,
    ) -> None:
        super().__init__()
        check_every_image_counts(criterion.matcher, "model.roi_heads.criterion.matcher")
        self.num_classes = num_classes
        self.in_features = list(in_features)
        self.pooler = pooler
        self.sampler = sampler
        self.stages = cast(Sequence[RoIStage], nn.ModuleList(stages))  # torch does not type what a list holds
        self.criterion = criterion
        self.box_criterion = box_criterion
        self.postprocess = postprocess
        if not stages:
            raise ConfigError("model.roi_heads.stages is empty: give at least one RoIStage.")
        for stage in stages[:-1]:
            if not isinstance(stage.boxes, AgnosticBoxes):
                raise ConfigError(
                    f"model.roi_heads.stages has {len(self.stages)} stages, but one before the last predicts a box per "
                    "class: set its boxes to AgnosticBoxes, whose box is the next stage's proposal."
                )

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Return the constructor's arguments from a yacs config.

        They are those of the published heads, with the numbers of MODEL.ROI_HEADS, MODEL.ROI_BOX_HEAD and TEST for
        classes, feature maps, pooling, sampling, boxes and post-processing. Raise ConfigError for what the heads do not
        support: masks, keypoints and a band of ignored proposals.
        """
        roi_heads, box_head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        _check_yacs(cfg)
        model = model_zoo.get_config("TSP/tsp_rcnn_r50_36ep").model
        model.backbone.out_channels = input_shape[roi_heads.IN_FEATURES[0]].channels
        heads = model.roi_heads
        heads.update(num_classes=roi_heads.NUM_CLASSES, in_features=roi_heads.IN_FEATURES)
        heads.pooler.update(
            output_size=box_head.POOLER_RESOLUTION,
            scales=[1 / input_shape[name].stride for name in roi_heads.IN_FEATURES],
            sampling_ratio=box_head.POOLER_SAMPLING_RATIO,
            pooler_type=box_head.POOLER_TYPE,
        )
        heads.sampler.update(
            iou_threshold=roi_heads.IOU_THRESHOLDS[0],
            batch_size_per_image=roi_heads.BATCH_SIZE_PER_IMAGE,
            positive_fraction=roi_heads.POSITIVE_FRACTION,
        )
        boxes = AgnosticBoxes if box_head.CLS_AGNOSTIC_BBOX_REG else ClassBoxes
        options = {} if boxes is AgnosticBoxes else {"num_classes": "${....num_classes}"}
        heads.stages[0].boxes = L(boxes)(
            embed_dim=heads.stages[0].boxes.embed_dim, weights=box_head.BBOX_REG_WEIGHTS, **options
        )
        heads.postprocess.update(
            nms_threshold=roi_heads.NMS_THRESH_TEST,
            score_threshold=roi_heads.SCORE_THRESH_TEST,
            num_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return {key: instantiate(value) for key, value in heads.items() if key != "_target_"}

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return no instances and the losses in training, otherwise the detections and no losses, as detectron2 does.

        `targets` have `gt_boxes` and `gt_classes`. Raise DatasetError for training without them.
        """
        if self.training:
            if not targets:
                raise DatasetError("The training images have no annotations: train with a mapper that reads them.")
            ground_truth = Targets.from_instances(
                targets, num_classes=self.num_classes, device=targets[0].gt_classes.device
            )
            return [], self.losses(features, RoIs.from_instances(self.sampler(proposals, targets)), ground_truth)
        return self.postprocess(*self.predict(features, RoIs.from_instances(proposals))), {}

    def predict(self, features: Mapping[str, Tensor], rois: RoIs) -> tuple[Tensor, Tensor, RoIs]:
        """Return probabilities (B, Q, K + 1), boxes (B, Q, D, 4) absolute xyxy and the proposals that the last stage
        refines.
        """
        outputs: RoIOutputs = self.stages[0](self.pool(features, rois), rois)
        for stage in self.stages[1:]:
            rois = rois.refined(outputs.boxes(rois)[:, :, 0])
            outputs = stage(self.pool(features, rois), rois, outputs)
        return self.stages[-1].classifier.probabilities(outputs.logits), outputs.boxes(rois), rois

    def losses(self, features: Mapping[str, Tensor], rois: RoIs, targets: Targets) -> dict[str, Tensor]:
        """Return the weighted losses of the sampled proposals; those of a stage k before the last end with `_k`."""
        losses: dict[str, Tensor] = {}
        outputs: RoIOutputs | None = None
        for k, stage in enumerate(self.stages):
            if outputs is not None:
                rois = self._assign_owners(rois.refined(outputs.boxes(rois)[:, :, 0].detach()), targets, stage)
            outputs = stage(self.pool(features, rois), rois, outputs)
            sets = {MAIN: RoIPredictions.of(outputs, rois, targets, softmax=stage.classifier.softmax, stage=k)}
            of_stage = {**self.criterion(sets, targets), **self.box_criterion(sets, targets)}
            suffix = "" if k == len(self.stages) - 1 else f"_{k}"
            losses.update({f"{name}{suffix}": value for name, value in of_stage.items()})
        return losses

    def pool(self, features: Mapping[str, Tensor], rois: RoIs) -> Tensor:
        """Return the regions (N, C', r, r) of all images, concatenated, in float32.

        Half precision would round the boxes by whole pixels. Each of several stages passes back its share of the
        gradient (Cascade R-CNN).
        """
        maps = [features[name].float() for name in self.in_features]
        with torch.autocast(rois.boxes.device.type, enabled=False):
            pooled = rois.pool(self.pooler, maps)
        share = 1 / len(self.stages)
        return pooled if share == 1 else pooled.detach() + share * (pooled - pooled.detach())

    @staticmethod
    def _assign_owners(rois: RoIs, targets: Targets, stage: RoIStage) -> RoIs:
        owners = [
            assign_objects(boxes.tensor, objects.gt_boxes.tensor, stage.iou_threshold)
            for boxes, objects in zip(rois.of_images(), targets.instances, strict=True)
        ]
        return dataclasses.replace(rois, owner=pad_images(owners, BACKGROUND))


def _check_yacs(cfg: Any) -> None:
    """Raise ConfigError for detectron2 keys that these heads do not support."""
    for key in ("MASK_ON", "KEYPOINT_ON"):
        if cfg.MODEL[key]:
            raise ConfigError(f"MODEL.{key} is True, but TSPROIHeads predicts boxes only: set it to False.")
    thresholds, labels = list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS), list(cfg.MODEL.ROI_HEADS.IOU_LABELS)
    if len(thresholds) != 1 or labels != [0, 1]:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS is {thresholds} with IOU_LABELS {labels}, but for TSPROIHeads a proposal "
            "is foreground or background: give one threshold and the labels [0, 1]."
        )
