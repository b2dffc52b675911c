"""The head of TSP-FCOS and its predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.layers.boxes import xyxy_to_cxcywh
from align_detr.projects.tsp.fcos.assign import Assignment, side_distances
from align_detr.projects.tsp.fcos.selection import FoIs
from align_detr.structures import Predictions, Sizes, fields_of


@dataclass(kw_only=True)
class PointPredictions(Predictions):
    """A prediction set of points.

    distances (R, B, Q, 4) from the point to the sides (left, top, right, bottom) in strides; centerness (R, B, Q)
    logits; `fois` are the points.
    """

    distances: Tensor
    centerness: Tensor
    fois: FoIs

    def pixel_boxes(self) -> Tensor:
        """Return the boxes of the last row, (B, Q, 4) absolute xyxy, not clipped."""
        return _boxes_around(self.fois, self.distances[-1])

    def assigned(self, assignment: Assignment) -> AssignedPredictions:
        """Return the set with the objects that its points belong to, which only training knows."""
        index = self.fois.index
        boxes = assignment.boxes[:, None]
        known = {
            "allowed": assignment.allowed.gather(1, index[..., None].expand(-1, -1, boxes.shape[2])),
            "owner": assignment.owner.gather(1, index),
            "target_distances": side_distances(self.fois.locations[:, :, None], self.fois.strides[..., None], boxes),
        }
        return AssignedPredictions(**{**fields_of(self), **known})


@dataclass(kw_only=True)
class AssignedPredictions(PointPredictions):
    """A prediction set of points in training.

    owner (B, Q), the index of the object that a point belongs to, or -1; target_distances (B, Q, T, 4) from the point
    to the sides of every object of its image.
    """

    owner: Tensor
    target_distances: Tensor

    @property
    def foreground(self) -> Tensor:
        """(B, Q) bool, True where a point belongs to an object and is not padding."""
        return self.owner >= 0 if self.valid is None else (self.owner >= 0) & self.valid


class PointHead(nn.Module):
    """Linear layers for the class (sigmoid), the distances and the centerness of each token.

    Distances are rectified and multiplied by a learned number per level. The centerness is trained but not used in
    detection, as in the official recipe.
    """

    def __init__(
        self, *, num_classes: int = 80, embed_dim: int = 512, num_levels: int = 5, prior: float = 0.01
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_embed = nn.Linear(embed_dim, num_classes)
        self.bbox_embed = nn.Linear(embed_dim, 4)
        self.centerness = nn.Linear(embed_dim, 1)
        self.scales = nn.Parameter(torch.ones(num_levels))
        for layer in (self.class_embed, self.centerness):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(self.class_embed.bias, -math.log((1 - prior) / prior))
        nn.init.zeros_(self.centerness.bias)

    def forward(self, hidden: Tensor, fois: FoIs) -> PointPredictions:
        """Predict classes and boxes of encoded tokens: hidden (B, Q, C) -> one row, float32."""
        logits, centerness = self.class_embed(hidden).float(), self.centerness(hidden).float()
        distances = self.bbox_embed(hidden).float().relu() * self.scales[fois.levels][..., None]
        sizes = _sides(fois.image_sizes, distances)
        boxes = xyxy_to_cxcywh(_boxes_around(fois, distances) / sizes[:, None])
        return PointPredictions(
            logits=logits[None],
            boxes=boxes[None],
            valid=fois.valid,
            distances=distances[None],
            centerness=centerness.squeeze(-1)[None],
            fois=fois,
        )


def _sides(images: Sizes, like: Tensor) -> Tensor:
    """Return width, height, width, height of each image, (B, 4), on the device and in the type of `like`."""
    if isinstance(images, Tensor):
        return images.flip(1).repeat(1, 2).to(like.dtype)
    return like.new_tensor([[width, height] * 2 for height, width in images])


def _boxes_around(fois: FoIs, distances: Tensor) -> Tensor:
    """Return the boxes of distances (B, Q, 4) in strides, as absolute xyxy."""
    pixels = distances * fois.strides[..., None]
    return torch.cat([fois.locations - pixels[..., :2], fois.locations + pixels[..., 2:]], dim=-1)
