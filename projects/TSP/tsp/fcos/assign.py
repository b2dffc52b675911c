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
    """The objects of a batch as its points see them.

    boxes (B, T, 4) absolute xyxy, zeros in padding; labels (B, P), -1 for background; owner (B, P), the object of its
    image that a point belongs to, or -1; allowed (B, P, T), the objects that a point may be matched to.
    """

    boxes: Tensor
    labels: Tensor
    owner: Tensor
    allowed: Tensor


class PointAssigner(nn.Module):
    """FCOS's rule: a point is eligible for an object if it lies inside its box, within `radius` strides of its centre
    on both axes (None: anywhere in the box), and if the farthest side of the box is in the range of the point's level.

    Level l covers distances from `sizes[l - 1]` to `sizes[l]` pixels, both included. Of several objects a point belongs
    to the smallest, the first on ties, and it may be matched to that one alone, as in the official code.
    """

    def __init__(self, *, sizes: Sequence[float] = (64, 128, 256, 512), radius: float | None = 1.5) -> None:
        super().__init__()
        self.sizes = [float(x) for x in sizes]
        self.radius = radius

    @torch.no_grad()
    def forward(self, points: Points, targets: Targets) -> Assignment:
        """`targets.instances` give the boxes in pixels."""
        boxes = pixel_boxes(targets, points.locations.device)
        eligible = self.eligible(points, boxes)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        smallest, owner = torch.where(eligible, area[:, None], torch.inf).min(-1)
        owner = torch.where(smallest < torch.inf, owner, -1)
        labels = torch.where(owner >= 0, targets.labels.gather(1, owner.clamp(min=0)), -1)
        return Assignment(boxes, labels, owner, self.allowed(eligible, owner))

    def eligible(self, points: Points, boxes: Tensor) -> Tensor:
        """(B, P, T) bool for boxes (B, T, 4); none lies inside an empty box, such as those of padding."""
        low, high = self._ranges(points)
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
        """(B, P, T): a point's own object."""
        return owner[..., None] == torch.arange(eligible.shape[-1], device=owner.device)

    def _ranges(self, points: Points) -> tuple[Tensor, Tensor]:
        """(P,) each: the shortest and the longest distance of each point's level."""
        bounds = torch.tensor([[-1.0, *self.sizes], [*self.sizes, torch.inf]], device=points.levels.device)
        shortest, longest = bounds[:, points.levels]
        return shortest, longest


class SharedPointAssigner(PointAssigner):
    """The rule as the paper words it: a point may be matched to every object it is eligible for, which leaves a true
    assignment problem. Boxes and dense classes, which need one object a point, still take the smallest.
    """

    def __init__(self, *, sizes: Sequence[float] = (64, 128, 256, 512), radius: float | None = None) -> None:
        super().__init__(sizes=sizes, radius=radius)

    def allowed(self, eligible: Tensor, owner: Tensor) -> Tensor:
        """(B, P, T): all eligible pairs."""
        return eligible


def pixel_boxes(targets: Targets, device: torch.device) -> Tensor:
    """(B, T, 4) absolute xyxy as annotated, zeros in padding: the targets' normalised boxes would round points on an
    edge to both sides.

    Raises ConfigError for targets without their instances.
    """
    if len(targets.instances) != len(targets.counts):
        raise ConfigError("TSP-FCOS assigns points by boxes in pixels: build its targets with Targets.from_instances")
    source = targets.instances[0].gt_boxes.tensor
    boxes = source.new_zeros((*targets.labels.shape, 4), dtype=torch.float32)
    for b, (x, n) in enumerate(zip(targets.instances, targets.counts, strict=True)):
        boxes[b, :n] = x.gt_boxes.tensor
    return boxes.to(device, non_blocking=True)


def side_distances(locations: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Distances (left, top, right, bottom) from points to the sides of boxes, in strides: locations (..., 2), strides
    (...), boxes (..., 4) absolute xyxy, which broadcast -> (..., 4). Negative where a point is outside.
    """
    x, y = locations.unbind(-1)
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=-1) / strides[..., None]
