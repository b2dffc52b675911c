"""Centerness and overlap of boxes that are given by their sides' distances from a point."""

import torch
from torch import Tensor


def centerness(distances: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)): (..., 4) as (left, top, right, bottom) -> (...), 0 outside
    (FCOS, Tian et al. 2019, equation 3).
    """
    near = torch.minimum(distances[..., :2], distances[..., 2:]).clamp(min=0)
    far = torch.maximum(distances[..., :2], distances[..., 2:]).clamp(min=torch.finfo(distances.dtype).tiny)
    return (near / far).prod(-1).sqrt()


def point_giou(a: Tensor, b: Tensor, smooth: float = 1.0) -> Tensor:
    """Generalised IoU of boxes around the same points, (..., 4) distances that broadcast -> (...).

    `smooth` is added to intersection and union. The official code has 1 and measures in strides, so that the IoU of a
    poor box around a small object is far above its value; a perfect box still gives 1. 0 is the plain form.
    """
    overlap = (torch.minimum(a[..., :2], b[..., :2]) + torch.minimum(a[..., 2:], b[..., 2:])).clamp(min=0)
    inter = overlap.prod(-1)
    union = _area(a) + _area(b) - inter
    hull = (torch.maximum(a[..., :2], b[..., :2]) + torch.maximum(a[..., 2:], b[..., 2:])).prod(-1)
    tiny = torch.finfo(a.dtype).tiny  # two boxes that are one and the same point
    return (inter + smooth) / (union + smooth).clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _area(distances: Tensor) -> Tensor:
    return (distances[..., :2] + distances[..., 2:]).prod(-1)
