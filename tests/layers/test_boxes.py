"""Boxes by arithmetic that a reader can redo."""

import pytest
import torch
from torch.testing import assert_close

from align_detr.layers.boxes import (
    box_area,
    cxcywh_to_xyxy,
    generalized_box_iou,
    pairwise_giou,
    pairwise_iou,
    xyxy_to_cxcywh,
)

UNIT = torch.tensor([0.0, 0.0, 1.0, 1.0])
SHIFTED = torch.tensor([0.5, 0.0, 1.5, 1.0])  # half of the unit square beyond it: intersection 1/2, union 3/2
APART = torch.tensor([2.0, 0.0, 3.0, 1.0])  # hull 3, union 2
POINT = torch.tensor([0.5, 0.5, 0.5, 0.5])


def test_conversions() -> None:
    assert_close(xyxy_to_cxcywh(SHIFTED), torch.tensor([1.0, 0.5, 1.0, 1.0]))
    assert_close(cxcywh_to_xyxy(torch.tensor([1.0, 0.5, 1.0, 1.0])), SHIFTED)


def test_iou_and_giou() -> None:
    others = torch.stack([UNIT, SHIFTED, APART])
    assert_close(pairwise_iou(UNIT[None], others), torch.tensor([[1.0, 1 / 3, 0.0]]))
    assert_close(pairwise_giou(UNIT[None], others), torch.tensor([[1.0, 1 / 3, -1 / 3]]))


def test_epsilon_is_added_to_union_and_hull() -> None:
    assert_close(pairwise_giou(UNIT[None], APART[None], eps=1.0), torch.tensor([[0.0 - (3 - 2) / (3 + 1)]]))


def test_degenerate_boxes_are_finite_with_finite_gradients() -> None:
    a = torch.stack([POINT, POINT, UNIT]).requires_grad_()
    b = torch.stack([POINT, UNIT, POINT])
    giou = generalized_box_iou(a, b)
    assert_close(giou, torch.zeros(3))  # a point in the unit square: intersection 0, hull = union = 1
    giou.sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16, torch.int32, torch.int64, torch.float64])
def test_pixel_boxes_of_any_type(dtype: torch.dtype) -> None:
    """Areas beyond float16's 65504 and, with sides of 65536, beyond int32: half of a box beyond the other."""
    side = 65536 if dtype in (torch.int32, torch.int64) else 16384
    a, b = torch.tensor([[0, 0, side, side]]).to(dtype), torch.tensor([[side // 2, 0, side, side]]).to(dtype)
    exact = torch.float64 if dtype in (torch.int64, torch.float64) else torch.float32
    assert_close(box_area(a), torch.tensor([float(side) ** 2], dtype=exact))
    assert_close(pairwise_giou(a, b), torch.tensor([[0.5]], dtype=exact))
    assert_close(pairwise_iou(a, b), torch.tensor([[0.5]], dtype=exact))
    assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(b)), b.to(exact))


def test_no_boxes() -> None:
    assert pairwise_giou(torch.zeros(0, 4), UNIT[None]).shape == (0, 1)


def test_gradients_are_computed_without_waiting_for_a_number() -> None:
    """The areas use no `prod`, whose backward pass asks the device whether a side is zero."""
    a = torch.stack([UNIT, SHIFTED, POINT]).requires_grad_()
    giou = generalized_box_iou(a, torch.stack([SHIFTED, APART, UNIT]))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        giou.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::div" in names and "aten::_local_scalar_dense" not in names
