"""Centerness and overlap of boxes given as distances from a point to their sides."""

import torch
from torch import Tensor


def centerness(distances: Tensor) -> Tensor:
    """Return sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)), 0 outside the box (FCOS, equation 3).

    distances (..., 4) as (left, top, right, bottom) -> (...). FCOS is Tian et al. 2019.
    """
    near = torch.minimum(distances[..., :2], distances[..., 2:]).clamp(min=0)
    far = torch.maximum(distances[..., :2], distances[..., 2:]).clamp(min=torch.finfo(distances.dtype).tiny)
    return (near / far).prod(-1).sqrt()


def point_giou(a: Tensor, b: Tensor, smooth: float = 1.0) -> Tensor:
    """Return the generalised IoU of boxes around the same points: distances (..., 4) that broadcast -> (...).

    `smooth` is added to intersection and union; 0 is the plain form. The official code adds 1, in units of strides,
    which raises the IoU of a poor box around a small object far above its plain value; a perfect box still gives 1.
    """
    overlap = (torch.minimum(a[..., :2], b[..., :2]) + torch.minimum(a[..., 2:], b[..., 2:])).clamp(min=0)
    inter = overlap.prod(-1)
    union = _area(a) + _area(b) - inter
    hull = (torch.maximum(a[..., :2], b[..., :2]) + torch.maximum(a[..., 2:], b[..., 2:])).prod(-1)
    tiny = torch.finfo(a.dtype).tiny  # for two empty boxes at the same point
    return (inter + smooth) / (union + smooth).clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _area(distances: Tensor) -> Tensor:
    return (distances[..., :2] + distances[..., 2:]).prod(-1)
