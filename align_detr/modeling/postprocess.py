"""From the last row of a prediction set to detections."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.structures import Predictions


class SoftmaxPostprocess(nn.Module):
    """Each query gives its most probable class other than "no object" (DETR): Q detections an image. Queries that are
    padding give none.
    """

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The last row of `predictions` in images of (height, width): `pred_boxes` absolute xyxy, not clipped,
        `scores`, `pred_classes`. Raises `ConfigError` for sigmoid logits, whose last class is an object's.
        """
        if not predictions.softmax:
            raise ConfigError(
                "SoftmaxPostprocess reads softmax logits, but model.head gives sigmoid ones: set model.postprocess to "
                "TopKPostprocess, or model.head.softmax to True with losses and costs for it"
            )
        scores, classes = _probabilities(predictions).max(-1)
        results = _instances(predictions.boxes[-1].float(), scores, classes, image_sizes)
        if predictions.valid is None:
            return results
        return [detections[valid] for detections, valid in zip(results, predictions.valid, strict=True)]


class TopKPostprocess(nn.Module):
    """The `num_detections` highest class probabilities over queries and classes together, whatever the head
    (Deformable-DETR and its relatives). Queries that are padding give none.
    """

    def __init__(self, *, num_detections: int = 300) -> None:
        super().__init__()
        self.num_detections = num_detections

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The last row of `predictions` in images of (height, width): `pred_boxes` absolute xyxy, not clipped, `scores`
        descending, `pred_classes`.
        """
        probability = _probabilities(predictions)
        if predictions.valid is not None:
            probability = probability.masked_fill(~predictions.valid[..., None], -1.0)
        num_classes = probability.shape[-1]
        flat = probability.flatten(1)
        scores, index = flat.topk(min(self.num_detections, flat.shape[1]), dim=1)
        query = torch.div(index, num_classes, rounding_mode="floor")
        boxes = predictions.boxes[-1].float().gather(1, query[..., None].expand(-1, -1, 4))
        results = _instances(boxes, scores, index % num_classes, image_sizes)
        return results if predictions.valid is None else [x[x.scores >= 0] for x in results]


def _probabilities(predictions: Predictions) -> Tensor:
    """Of each class in the last row, "no object" left out: (B, Q, K) float32."""
    logits = predictions.logits[-1].float()
    return logits.softmax(-1)[..., :-1] if predictions.softmax else logits.sigmoid()


def _instances(
    boxes: Tensor, scores: Tensor, classes: Tensor, image_sizes: Sequence[tuple[int, int]]
) -> list[Instances]:
    results = []
    for b, (height, width) in enumerate(image_sizes):
        corners = cxcywh_to_xyxy(boxes[b]) * boxes.new_tensor([width, height, width, height])
        results.append(Instances((height, width), pred_boxes=Boxes(corners), scores=scores[b], pred_classes=classes[b]))
    return results
