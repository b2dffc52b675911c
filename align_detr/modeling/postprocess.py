"""From the last row of a prediction set to detections."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.structures import Predictions


class SoftmaxPostprocess(nn.Module):
    """Each query gives its most probable class other than "no object" (DETR): Q detections an image."""

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The last row of `predictions` in images of (height, width): `pred_boxes` absolute xyxy, not clipped,
        `scores`, `pred_classes`.
        """
        scores, classes = predictions.logits[-1].float().softmax(-1)[..., :-1].max(-1)
        return _instances(predictions.boxes[-1].float(), scores, classes, image_sizes)


class TopKPostprocess(nn.Module):
    """The `num_detections` highest sigmoid scores over queries and classes together (Deformable-DETR and its
    relatives). Queries that are padding give none.
    """

    def __init__(self, *, num_detections: int = 300) -> None:
        super().__init__()
        self.num_detections = num_detections

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The last row of `predictions` in images of (height, width): `pred_boxes` absolute xyxy, not clipped, `scores`
        descending, `pred_classes`.
        """
        probability = predictions.logits[-1].float().sigmoid()
        if predictions.valid is not None:
            probability = probability.masked_fill(~predictions.valid[..., None], -1.0)
        num_classes = probability.shape[-1]
        flat = probability.flatten(1)
        scores, index = flat.topk(min(self.num_detections, flat.shape[1]), dim=1)
        query = torch.div(index, num_classes, rounding_mode="floor")
        boxes = predictions.boxes[-1].float().gather(1, query[..., None].expand(-1, -1, 4))
        results = _instances(boxes, scores, index % num_classes, image_sizes)
        return results if predictions.valid is None else [found[found.scores >= 0] for found in results]


def _instances(
    boxes: Tensor, scores: Tensor, classes: Tensor, image_sizes: Sequence[tuple[int, int]]
) -> list[Instances]:
    results = []
    for b, (height, width) in enumerate(image_sizes):
        corners = cxcywh_to_xyxy(boxes[b]) * boxes.new_tensor([width, height, width, height])
        results.append(Instances((height, width), pred_boxes=Boxes(corners), scores=scores[b], pred_classes=classes[b]))
    return results
