"""Test-time augmentation: what several views of an image become, by arithmetic."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from align_detr.errors import ConfigError
from align_detr.inference.merging import merge_views, merge_with_nms
from align_detr.inference.views import View

A, B, C = (0.0, 0, 10, 10, 0.8, 0), (0.0, 0, 10, 9, 0.6, 0), (50.0, 50, 60, 60, 0.5, 1)


def view(*rows: tuple[float, ...]) -> Instances:
    """Return detections of (x0, y0, x1, y1, score, class)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Instances((100, 100), pred_boxes=Boxes(table[:, :4]), scores=table[:, 4], pred_classes=table[:, 5].long())


def rows(found: Instances) -> list[list[float]]:
    columns = [found.pred_boxes.tensor, found.scores[:, None], found.pred_classes[:, None].float()]
    return torch.cat(columns, dim=1).tolist()


def test_views_are_paired_one_to_one_and_averaged() -> None:
    """(1, 0, 11, 10) with score 0.4 has an IoU of 90/110 with A and of 81/109 with B: it is A's. Weighted by 0.8 and
    0.4, x0 is 0.4 / 1.2 and x1 is (8 + 4.4) / 1.2; the score is 1.2 / 2. What one view alone has counts half, and as
    many remain as the first view has.
    """
    merged = merge_views([view(A, B, C), view((1, 0, 11, 10, 0.4, 0), (80, 80, 90, 90, 0.3, 0))])
    expected = [[1 / 3, 0, 31 / 3, 10, 0.6, 0], [0, 0, 10, 9, 0.3, 0], [50, 50, 60, 60, 0.25, 1]]
    assert rows(merged) == [pytest.approx(row, abs=1e-5) for row in expected]


def test_a_view_alone_and_a_view_twice_stay_as_they_are() -> None:
    """Overlapping detections of one class as well: nothing is suppressed within a view."""
    for views in ([view(A, B, C)], [view(A, B, C)] * 3):
        assert rows(merge_views(views)) == [pytest.approx(row, abs=1e-6) for row in (A, B, C)]


def test_other_classes_and_distant_boxes_are_not_paired() -> None:
    """(4, 0, 14, 10) has an IoU of 60/140 with A, below 0.55."""
    merged = merge_views([view(A), view((0, 0, 10, 10, 0.7, 1), (4, 0, 14, 10, 0.6, 0))])
    assert [row[4:] for row in rows(merged)] == [pytest.approx(x, abs=1e-6) for x in ([0.4, 0], [0.35, 1])]


def test_an_empty_view_halves_the_scores() -> None:
    assert rows(merge_views([view(), view(C)])) == [pytest.approx([50, 50, 60, 60, 0.25, 1])]
    assert len(merge_views([view(), view()])) == 0


def test_nms_on_request_keeps_the_best() -> None:
    """A and B overlap by 0.9 and (1, 0, 11, 10) overlaps A by 0.82: of the three A remains."""
    merged = merge_with_nms([view(A, B, C), view((1, 0, 11, 10, 0.4, 0))], 0.7)
    assert rows(merged) == [pytest.approx(A), pytest.approx(C)]


def test_masks_are_turned_back_with_their_boxes() -> None:
    """What lies in the left column of a flipped view lies in the right one of the image."""
    found = view((0, 0, 10, 10, 0.8, 0))
    found.pred_masks = torch.zeros(1, 100, 100, dtype=torch.bool)
    found.pred_masks[0, 3, 0] = True
    turned = View(flip=True).in_image(found)
    assert turned.pred_boxes.tensor.tolist() == [[90, 0, 100, 10]]
    assert turned.pred_masks.nonzero().tolist() == [[0, 3, 99]]


def test_masks_are_not_lost_in_a_mean() -> None:
    found = view(A)
    found.pred_masks = torch.ones(1, 100, 100, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r"merged into boxes without masks.*nms=0\.7"):
        merge_views([found, found])
    assert merge_with_nms([found, found], 0.7).pred_masks.shape == (1, 100, 100)
