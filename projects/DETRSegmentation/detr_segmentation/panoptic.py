"""Panoptic segmentations from masks that may overlap."""

from typing import Any

import torch
from torch import Tensor, nn

from align_detr.checks import check_count, check_share
from align_detr.structures import Predictions

LEAST_AREA = 5  # the paper leaves out masks of fewer than 4 pixels, its released code those of at most 4


class PanopticMerge(nn.Module):
    """DETR's panoptic merging (section 4.4 and appendix A.4 of the paper): queries whose best class has more than
    `score_threshold` compete for every pixel, the largest mask logit wins, the segments of one stuff class become one,
    and segments of fewer than `least_area` pixels are left out, until none is so small.

    The classes below `num_things` are things, the others stuff. Every pixel belongs to a segment, unless no query is
    left. The least area is the released code's.
    """

    def __init__(self, *, num_things: int, score_threshold: float = 0.85, least_area: int = LEAST_AREA) -> None:
        super().__init__()
        self.num_things = check_count(num_things, "model.panoptic.num_things", 0)
        self.score_threshold = check_share(score_threshold, "model.panoptic.score_threshold")
        self.least_area = check_count(least_area, "model.panoptic.least_area", 0)

    def select(self, predictions: Predictions, image: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries (N,) of an image that compete, by the last row of `predictions`, and the score and class
        (N,) of each.
        """
        logits = predictions.logits[-1, image].float()  # (Q, K) or (Q, K + 1)
        probability = logits.softmax(-1) if predictions.softmax else logits.sigmoid()
        scores, classes = probability.max(-1)
        kept = scores > self.score_threshold
        if predictions.softmax:
            kept &= classes < logits.shape[-1] - 1  # not "no object"
        if predictions.valid is not None:
            kept &= predictions.valid[image]
        queries = kept.nonzero()[:, 0]
        return queries, scores[queries], classes[queries]

    def forward(self, masks: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Merge mask logits (N, H, W) with scores and classes (N,).

        Return detectron2's `panoptic_seg`: segment ids (H, W) int32, 0 where there is none, and of each segment `id`,
        `isthing`, `category_id` (a class of the model), `area` in pixels and `score`.
        """
        kept = torch.arange(len(masks), device=masks.device)
        owner = masks.new_zeros(masks.shape[-2:], dtype=torch.int64)
        areas = owner.new_zeros(0)
        while len(kept):
            first = self._first_of_segment(classes[kept])
            owner = first[masks[kept].argmax(0)]
            areas = owner.flatten().bincount(minlength=len(kept))
            small = (areas < self.least_area)[first]  # a stuff class stays or goes as a whole
            if not small.any():
                break
            kept = kept[~small]
        return self._segments(kept, owner, areas, scores, classes)

    def _first_of_segment(self, classes: Tensor) -> Tensor:
        """Return which query (N,) stands for each: itself, or for stuff the first one of its class."""
        number = torch.arange(len(classes), device=classes.device)
        together = (classes[:, None] == classes) & (classes >= self.num_things)
        return torch.where(together.any(1), together.int().argmax(1), number)

    def _segments(
        self, kept: Tensor, owner: Tensor, areas: Tensor, scores: Tensor, classes: Tensor
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Return the segments, numbered from 1 in the order of the queries: ids (H, W) and what is known of each."""
        ids = torch.zeros_like(owner, dtype=torch.int32)
        segments: list[dict[str, Any]] = []
        if not len(kept):
            return ids, segments
        for number in (areas > 0).nonzero()[:, 0].tolist():
            label = int(classes[kept[number]])
            ids[owner == number] = len(segments) + 1
            segments.append(
                {
                    "id": len(segments) + 1,
                    "isthing": label < self.num_things,
                    "category_id": label,
                    "area": int(areas[number]),
                    "score": float(scores[kept[number]]),
                }
            )
        return ids, segments
