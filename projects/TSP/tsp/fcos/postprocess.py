"""Post-processing of TSP-FCOS: from points to detections."""

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.projects.tsp.fcos.head import PointPredictions
from align_detr.projects.tsp.nms import kept_by_nms


class PointPostprocess(nn.Module):
    """The best `candidates_per_level` pairs of point and class per level, class-wise NMS, the best `num_detections`.

    Scores are square roots of the class probability, as in the official code, which leaves out FCOS's product with the
    centerness; the order is that of the probability. `nms_threshold=None` turns NMS off and relies on the set loss.
    """

    def __init__(
        self, *, num_detections: int = 100, candidates_per_level: int = 1000, nms_threshold: float | None = 0.6
    ) -> None:
        super().__init__()
        self.num_detections = num_detections
        self.candidates_per_level = candidates_per_level
        self.nms_threshold = nms_threshold

    def forward(self, predictions: PointPredictions) -> list[Instances]:
        """Return `pred_boxes` (absolute xyxy, not clipped), `scores` (descending) and `pred_classes` of each image."""
        scores = predictions.logits[-1].sigmoid().sqrt()
        if predictions.valid is not None:
            scores = torch.where(predictions.valid[..., None], scores, 0.0)
        boxes, levels = predictions.pixel_boxes(), predictions.fois.levels
        sizes = predictions.fois.image_sizes
        return [self._detect(*x) for x in zip(scores, boxes, levels, sizes, strict=True)]

    def of_padded(self, predictions: PointPredictions, levels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return `forward`'s detections of points of so many `levels`, for sizes in a tensor: boxes (B, N, 4), clipped,
        scores (B, N), labels (B, N). Where an image has fewer, score and box are zeros.
        """
        fois = predictions.fois
        scores = predictions.logits[-1].sigmoid().sqrt()  # (B, Q, K)
        if predictions.valid is not None:
            scores = torch.where(predictions.valid[..., None], scores, 0.0)
        classes, parts = scores.shape[-1], []
        for level in range(levels):
            flat = scores.masked_fill((fois.levels != level)[..., None], 0.0).flatten(1)
            parts.append(flat.topk(torch.sym_min(self.candidates_per_level, flat.shape[1]), dim=1))
        score, index = (torch.cat(x, dim=1) for x in zip(*parts, strict=True))  # (B, candidates)
        query, label = index // classes, index % classes
        boxes = predictions.pixel_boxes().gather(1, query[..., None].expand(-1, -1, 4))
        if self.nms_threshold is not None:
            score = score * kept_by_nms(boxes, score, label, self.nms_threshold).to(score.dtype)
        score, best = score.topk(torch.sym_min(self.num_detections, score.shape[1]), dim=1)
        boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        limits = torch.as_tensor(fois.image_sizes).flip(1).repeat(1, 2)[:, None].float()
        boxes = boxes.clamp(min=0.0).minimum(limits) * (score > 0)[..., None].float()
        return boxes, score, label.gather(1, best)

    def _detect(self, scores: Tensor, boxes: Tensor, levels: Tensor, size: tuple[int, int]) -> Instances:
        """Return the detections of one image: scores (Q, K), boxes (Q, 4), levels (Q,)."""
        parts = []
        for level in levels.unique():
            of_level = (levels == level).nonzero().squeeze(1)
            flat = scores[of_level].flatten()
            best, index = flat.topk(min(self.candidates_per_level, len(flat)))
            point = of_level[torch.div(index, scores.shape[1], rounding_mode="floor")]
            parts.append((best, boxes[point], index % scores.shape[1]))
        score, box, label = (torch.cat(x) for x in zip(*parts, strict=True))
        positive = score > 0
        score, box, label = score[positive], box[positive], label[positive]
        if self.nms_threshold is None:
            kept = score.argsort(descending=True)
        else:
            kept = batched_nms(box, score, label, self.nms_threshold)
        kept = kept[: self.num_detections]
        return Instances(size, pred_boxes=Boxes(box[kept]), scores=score[kept], pred_classes=label[kept])
