"""TSP-RCNN's proposals and regions as tensors of fixed shapes, for export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from torch import Tensor

from align_detr.errors import ConfigError
from align_detr.projects.tsp.nms import kept_by_nms
from align_detr.projects.tsp.rcnn.rois import RoIs

_SMALL = (0.0, 0.0, 1.0, 1.0)  # a box with one sample per cell, in place of boxes whose pooled values nobody reads


@dataclass(kw_only=True)
class PaddedRoIs(RoIs):
    """`RoIs` whose counts and image sizes are in tensors: `real` (B, Q) bool, `sizes` (B, 2) height and width.

    `counts` and `image_sizes` are empty.
    """

    real: Tensor
    sizes: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, Q) bool, False in padding."""
        return self.real

    @property
    def is_padded(self) -> bool:
        """True, as nobody knows before the graph runs."""
        return True

    @property
    def sides(self) -> Tensor:
        """Width, height, width, height of each image, (B, 1, 4)."""
        return limits_of(self.sizes)

    def padded(self, values: Tensor) -> Tensor:
        """Return the values of all places, concatenated, (B * Q, ...), as (B, Q, ...)."""
        return values.unflatten(0, self.boxes.shape[:2])

    def pool(self, pooler: ROIPooler, maps: Sequence[Tensor]) -> Tensor:
        """Return the regions (B * Q, C', r, r): each level pools all boxes, those of other levels at next to no cost.

        A box without a side has zeros, as in PyTorch; elsewhere it is 0 / 0.
        """
        boxes = self.boxes.flatten(0, 1)
        image = torch.arange(self.boxes.shape[0], device=boxes.device)[:, None].expand(self.boxes.shape[:2]).flatten()
        full = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        sizes = pooler.canonical_box_size, pooler.canonical_level
        level = assign_boxes_to_levels([Boxes(boxes)], pooler.min_level, pooler.max_level, *sizes)
        pooled = boxes.new_zeros(())
        for index, (of_level, x) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
            here = full & (level == index)
            chosen = torch.where(here[:, None], boxes, boxes.new_tensor(_SMALL))
            regions = of_level(x, torch.cat([image[:, None].to(boxes.dtype), chosen], dim=1))
            pooled = torch.where(here[:, None, None, None], regions, pooled)
        return pooled


def propose(generator: torch.nn.Module, features: Mapping[str, Tensor], sizes: Tensor) -> PaddedRoIs:
    """Return the proposals of detectron2's `RPN`, as many for each image; sizes (B, 2) are heights and widths.

    Raise ConfigError for another proposal generator.
    """
    if not isinstance(generator, RPN) or not isinstance(generator.anchor_generator, DefaultAnchorGenerator):
        raise ConfigError(
            "model.proposal_generator has no form for export: make it detectron2's RPN with a DefaultAnchorGenerator."
        )
    maps = [features[name] for name in generator.in_features]
    logits, deltas = generator.rpn_head(maps)
    chosen = [_best_of_level(generator, *x) for x in zip(logits, deltas, _anchors(generator, maps), strict=True)]
    boxes, scores = (torch.cat(x, dim=1) for x in zip(*chosen, strict=True))  # (B, N, 4), (B, N)
    level = torch.cat([torch.full_like(x, index) for index, (_, x) in enumerate(chosen)], dim=1)
    boxes = boxes.clamp(min=0.0).minimum(limits_of(sizes))
    real = ((boxes[..., 2:] - boxes[..., :2]) > generator.min_box_size).all(-1)
    scores = scores.masked_fill(~real, -torch.inf)  # last in the NMS, so that they remove no other
    kept = kept_by_nms(boxes, scores, level, generator.nms_thresh)
    scores, index = scores.masked_fill(~kept, -torch.inf).topk(
        torch.sym_min(generator.post_nms_topk[False], scores.shape[1]), dim=1
    )
    real = scores > -torch.inf
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4)) * real[..., None].to(boxes.dtype)
    return PaddedRoIs(boxes=boxes, counts=[], image_sizes=[], real=real, sizes=sizes)


def limits_of(sizes: Tensor) -> Tensor:
    """Return width, height, width, height of sizes (B, 2), as (B, 1, 4) float32."""
    return sizes.flip(1).repeat(1, 2)[:, None].float()


def _anchors(generator: RPN, maps: Sequence[Tensor]) -> list[Tensor]:
    """Return the anchors of each level, (h * w * A, 4) xyxy in pixels."""
    anchors = generator.anchor_generator
    found = []
    for x, stride, cells in zip(maps, anchors.strides, anchors.cell_anchors, strict=True):
        rows, columns = ((torch.arange(n, device=x.device) + anchors.offset) * stride for n in x.shape[-2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        corners = torch.stack([x, y, x, y], dim=-1).to(cells.dtype)  # (h, w, 4)
        found.append((corners[:, :, None] + cells).flatten(0, 2))
    return found


def _best_of_level(generator: RPN, logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes (B, n, 4) and scores (B, n) of the anchors that score highest: logits (B, A, h, w), deltas (B,
    4 A, h, w), anchors (h * w * A, 4).
    """
    flat = logits.permute(0, 2, 3, 1).flatten(1)  # (B, h * w * A)
    deltas = deltas.unflatten(1, (logits.shape[1], 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
    scores, index = flat.topk(torch.sym_min(generator.pre_nms_topk[False], flat.shape[1]), dim=1)
    deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
    boxes = generator.box2box_transform.apply_deltas(deltas.flatten(0, 1), anchors[index].flatten(0, 1))
    return boxes.unflatten(0, index.shape), scores
