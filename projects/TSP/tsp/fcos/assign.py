"""Which points belong to which objects (FCOS, Tian et al. 2019, with centre sampling)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import Targets


@dataclass
class Assignment:
    """The objects of a batch and the points that belong to them.

    boxes (B, T, 4) absolute xyxy, zeros in padding; labels (B, P), -1 for background; owner (B, P), the index of the
    object that a point belongs to, or -1; allowed (B, P, T), True where a point may be matched to an object.
    """

    boxes: Tensor
    labels: Tensor
    owner: Tensor
    allowed: Tensor


class PointAssigner(nn.Module):
    """FCOS's assignment of points to objects.

    A point is eligible for an object if it lies inside the box, within `radius` strides of its centre on both axes
    (None: anywhere in the box), and if its distance to the farthest side is in the range of its level: from
    `sizes[l - 1]` to `sizes[l]` pixels for level l, both included. Of several objects a point belongs to the smallest,
    the first on ties, and may be matched to that object only, as in the official code.
    """

    def __init__(self, *, sizes: Sequence[float] = (64, 128, 256, 512), radius: float | None = 1.5) -> None:
        super().__init__()
        self.sizes = [float(x) for x in sizes]
        self.radius = radius

    @torch.no_grad()
    def forward(self, points: Points, targets: Targets) -> Assignment:
        """Assign the points of a batch to its objects, whose boxes in pixels are those of `targets.instances`."""
        boxes = pixel_boxes(targets, points.locations.device)
        eligible = self.eligible(points, boxes)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        smallest, owner = torch.where(eligible, area[:, None], torch.inf).min(-1)
        owner = torch.where(smallest < torch.inf, owner, -1)
        labels = torch.where(owner >= 0, targets.labels.gather(1, owner.clamp(min=0)), -1)
        return Assignment(boxes, labels, owner, self.allowed(eligible, owner))

    def eligible(self, points: Points, boxes: Tensor) -> Tensor:
        """Return (B, P, T) bool for boxes (B, T, 4); no point is eligible for an empty box, such as padding."""
        low, high = self._distance_ranges(points)
        x, y = (v[:, None] for v in points.locations.unbind(-1))
        x0, y0, x1, y1 = (v[:, None] for v in boxes.unbind(-1))
        farthest = torch.maximum(torch.maximum(x - x0, x1 - x), torch.maximum(y - y0, y1 - y))
        right_level = (farthest >= low[:, None]) & (farthest <= high[:, None])
        if self.radius is not None:
            reach = self.radius * points.strides[:, None]
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            x0, y0 = torch.maximum(x0, cx - reach), torch.maximum(y0, cy - reach)
            x1, y1 = torch.minimum(x1, cx + reach), torch.minimum(y1, cy + reach)
        return right_level & (x > x0) & (x < x1) & (y > y0) & (y < y1)

    def allowed(self, eligible: Tensor, owner: Tensor) -> Tensor:
        """Return (B, P, T) bool, True for the owner of a point only."""
        return owner[..., None] == torch.arange(eligible.shape[-1], device=owner.device)

    def _distance_ranges(self, points: Points) -> tuple[Tensor, Tensor]:
        """Return the shortest and the longest distance of each point's level, (P,) each."""
        bounds = torch.tensor([[-1.0, *self.sizes], [*self.sizes, torch.inf]], device=points.levels.device)
        shortest, longest = bounds[:, points.levels]
        return shortest, longest


class SharedPointAssigner(PointAssigner):
    """The assignment as the paper words it: a point may be matched to every object that it is eligible for.

    The matching is then a true assignment problem. Boxes and dense classes need one object per point and still take
    the smallest.
    """

    def __init__(self, *, sizes: Sequence[float] = (64, 128, 256, 512), radius: float | None = None) -> None:
        super().__init__(sizes=sizes, radius=radius)

    def allowed(self, eligible: Tensor, owner: Tensor) -> Tensor:
        """Return (B, P, T) bool, True for all eligible pairs."""
        return eligible


def pixel_boxes(targets: Targets, device: torch.device) -> Tensor:
    """Return the boxes as annotated, (B, T, 4) absolute xyxy, zeros in padding.

    The normalised boxes of the targets would round points on an edge to either side. Raise ConfigError for targets
    without instances.
    """
    if len(targets.instances) != len(targets.counts):
        raise ConfigError(
            "The targets have no boxes in pixels, which assign points: build them with Targets.from_instances."
        )
    source = targets.instances[0].gt_boxes.tensor
    boxes = source.new_zeros((*targets.labels.shape, 4), dtype=torch.float32)
    for b, (x, n) in enumerate(zip(targets.instances, targets.counts, strict=True)):
        boxes[b, :n] = x.gt_boxes.tensor
    return boxes.to(device, non_blocking=True)


def side_distances(locations: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances (left, top, right, bottom) from points to the sides of boxes, in strides.

    locations (..., 2), strides (...), boxes (..., 4) absolute xyxy, which broadcast -> (..., 4), negative where a point
    is outside.
    """
    x, y = locations.unbind(-1)
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=-1) / strides[..., None]
