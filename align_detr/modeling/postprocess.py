"""Detections from the last row of a prediction set."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.structures import Predictions


class SoftmaxPostprocess(nn.Module):
    """The most probable class of each query, without "no object" (DETR): Q detections per image, except padding."""

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """Return the detections of the last row of `predictions` in images of (height, width): `pred_boxes` absolute
        xyxy, not clipped, `scores`, `pred_classes`.

        Raise ConfigError for sigmoid logits, whose last column is an object class.
        """
        if not predictions.softmax:
            raise ConfigError(
                "SoftmaxPostprocess reads softmax logits, but model.head gives sigmoid ones: set model.postprocess to "
                "TopKPostprocess, or model.head.softmax to True with losses and costs for it."
            )
        scores, classes = class_probabilities(predictions).max(-1)
        results = _instances(predictions.boxes[-1].float(), scores, classes, image_sizes)
        if predictions.valid is None:
            return results
        return [detections[valid] for detections, valid in zip(results, predictions.valid, strict=True)]


class TopKPostprocess(nn.Module):
    """The `num_detections` highest class probabilities over all pairs of query and class, for softmax and sigmoid heads
    (Deformable-DETR and its relatives), without padding queries.
    """

    def __init__(self, *, num_detections: int = 300) -> None:
        super().__init__()
        self.num_detections = num_detections

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """Return the detections of the last row of `predictions` in images of (height, width): `pred_boxes` absolute
        xyxy, not clipped, `scores` descending, `pred_classes`.
        """
        probability = class_probabilities(predictions)  # (B, Q, K)
        if predictions.valid is not None:  # -1 marks what is dropped at the end
            probability = probability.masked_fill(~predictions.valid[..., None], -1.0)
        num_classes = probability.shape[-1]
        flat = probability.flatten(1)  # (B, Q * K): entry query * K + class
        scores, index = flat.topk(min(self.num_detections, flat.shape[1]), dim=1)
        query = torch.div(index, num_classes, rounding_mode="floor")
        boxes = predictions.boxes[-1].float().gather(1, query[..., None].expand(-1, -1, 4))
        results = _instances(boxes, scores, index % num_classes, image_sizes)
        return results if predictions.valid is None else [x[x.scores >= 0] for x in results]


def class_probabilities(predictions: Predictions) -> Tensor:
    """Return the class probabilities of the last row without "no object", (B, Q, K) float32."""
    logits = predictions.logits[-1].float()
    return logits.softmax(-1)[..., :-1] if predictions.softmax else logits.sigmoid()


def _instances(
    boxes: Tensor, scores: Tensor, classes: Tensor, image_sizes: Sequence[tuple[int, int]]
) -> list[Instances]:
    """Convert normalised cxcywh boxes (B, N, 4) with scores and classes (B, N) to detections."""
    results = []
    for b, (height, width) in enumerate(image_sizes):
        corners = cxcywh_to_xyxy(boxes[b]) * boxes.new_tensor([width, height, width, height])
        results.append(Instances((height, width), pred_boxes=Boxes(corners), scores=scores[b], pred_classes=classes[b]))
    return results
