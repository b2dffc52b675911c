"""Conversions and overlaps of boxes: `pairwise_*` for the matching, row by row for the losses.

Boxes may be of any type. Results are float32, or float64 for float64 and int64: the area of 300 x 300 pixels is beyond
float16, that of 50,000 x 50,000 beyond int32.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert centre and size to corners: (..., 4) -> (..., 4), in the same unit."""
    cx, cy, w, h = _wide(boxes).unbind(-1)
    return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert corners to centre and size: (..., 4) -> (..., 4), in the same unit."""
    x0, y0, x1, y1 = _wide(boxes).unbind(-1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the logit ln(x / (1 - x)) in float32, with x and 1 - x at least `eps`: (...) -> (...).

    `eps` limits the result to +-ln((1 - eps) / eps): 6.9 for 1e-3 (detrex, and DINO's repository), 11.5 for 1e-5
    (the repositories of Deformable-, Conditional- and DAB-DETR).
    """
    x = x.float().clamp(0, 1)
    return x.clamp(min=eps).log() - (1 - x).clamp(min=eps).log()


def box_area(boxes: Tensor) -> Tensor:
    """Return the area of xyxy boxes: (..., 4) -> (...)."""
    boxes = _wide(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return IoU and union of xyxy boxes that broadcast against each other: (..., 4), (..., 4) -> (...), (...).

    `eps` is added to the union. It is not negligible for normalised boxes: 1e-6 (detrex) makes the IoU of a 4x4-pixel
    box of a 1333x800 image with itself 0.94. With 0, as in the original DETR, 0/0 gives 0 with a zero gradient (NaN in
    the original).
    """
    a, b = _wide(a), _wide(b)
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = _product((high - low).clamp(min=0))
    union = box_area(a) + box_area(b) - inter
    return _ratio(inter, union + eps), union


def generalized_box_iou(a: Tensor, b: Tensor, eps: float = 0.0) -> Tensor:
    """Return the generalised IoU, in [-1, 1], of xyxy boxes that broadcast: (..., 4), (..., 4) -> (...).

    Rezatofighi et al. 2019, algorithm 1. `eps` is added to the union and to the hull, see `box_iou`. Two boxes that are
    the same point give 0.
    """
    a, b = _wide(a), _wide(b)
    iou, union = box_iou(a, b, eps)
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = _product((high - low).clamp(min=0))
    return iou - _ratio(hull - union, hull + eps)


def pairwise_iou(a: Tensor, b: Tensor, eps: float = 0.0) -> Tensor:
    """Return the IoU of all boxes of `a` (..., N, 4) with all of `b` (..., M, 4), xyxy: (..., N, M)."""
    return box_iou(a[..., :, None, :], b[..., None, :, :], eps)[0]


def pairwise_giou(a: Tensor, b: Tensor, eps: float = 0.0) -> Tensor:
    """Return the generalised IoU of all boxes of `a` (..., N, 4) with all of `b` (..., M, 4), xyxy: (..., N, M)."""
    return generalized_box_iou(a[..., :, None, :], b[..., None, :, :], eps)


def _wide(boxes: Tensor) -> Tensor:
    """Return the boxes in a type that holds their areas."""
    if boxes.dtype in (torch.float32, torch.float64):
        return boxes
    return boxes.to(torch.float64 if boxes.dtype == torch.int64 else torch.float32)


def _product(sides: Tensor) -> Tensor:
    # `prod` would wait for the device: its backward pass asks whether there is a zero
    return sides[..., 0] * sides[..., 1]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    # both selections are needed: the inner one keeps the division finite, the outer one blocks its gradient
    empty = whole == 0
    return torch.where(empty, torch.zeros_like(whole), part / torch.where(empty, torch.ones_like(whole), whole))
