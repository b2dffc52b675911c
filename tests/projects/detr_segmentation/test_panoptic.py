"""Panoptic merging, case by case."""

import torch
from torch import Tensor

from align_detr.projects.detr_segmentation import PanopticMerge
from align_detr.structures import Predictions

ROWS, COLUMNS = 4, 8


def logits(*regions: tuple[int, int, float]) -> Tensor:
    """Mask logits, each of a number in columns first to last - 1, and -5 elsewhere."""
    masks = torch.full((len(regions), ROWS, COLUMNS), -5.0)
    for mask, (first, last, value) in zip(masks, regions, strict=True):
        mask[:, first:last] = value
    return masks


def merge(masks: Tensor, classes: list[int], least_area: int = 5) -> tuple[list[int], list[tuple[int, int, bool]]]:
    """Return the segment of each column, and class, area and kind of each segment; classes 0 and 1 are things."""
    scores = torch.linspace(0.9, 0.99, len(classes))
    ids, segments = PanopticMerge(num_things=2, least_area=least_area)(masks, scores, torch.tensor(classes))
    assert ids.dtype == torch.int32 and (ids == ids[:1]).all()
    assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
    return ids[0].tolist(), [(s["category_id"], s["area"], s["isthing"]) for s in segments]


def test_the_largest_logit_wins_each_pixel() -> None:
    ids, segments = merge(logits((0, 5, 1.0), (3, 8, 2.0)), [0, 0])
    assert ids == [1, 1, 1, 2, 2, 2, 2, 2] and segments == [(0, 12, True), (0, 20, True)]


def test_stuff_of_a_class_is_one_segment_and_things_are_not() -> None:
    ids, segments = merge(logits((0, 2, 1.0), (2, 4, 1.0), (4, 6, 1.0), (6, 8, 1.0)), [2, 1, 2, 1])
    assert ids == [1, 1, 2, 2, 1, 1, 3, 3]
    assert segments == [(2, 16, False), (1, 8, True), (1, 8, True)]


def test_small_segments_leave_their_pixels_to_the_next_best() -> None:
    """A column has 4 pixels. Without it, the other masks compete for it anew."""
    masks = logits((0, 4, 1.0), (4, 8, 1.0), (3, 4, 9.0))
    masks[1, :, 3] = 3.0
    assert merge(masks, [0, 1, 1]) == ([1, 1, 1, 2, 2, 2, 2, 2], [(0, 12, True), (1, 20, True)])
    assert merge(masks, [0, 1, 1], least_area=4)[0] == [1, 1, 1, 3, 2, 2, 2, 2]


def test_a_part_of_stuff_is_not_small_on_its_own() -> None:
    ids, segments = merge(logits((0, 3, 1.0), (3, 4, 9.0), (4, 8, 1.0)), [2, 2, 3])
    assert ids == [1, 1, 1, 1, 2, 2, 2, 2] and segments == [(2, 16, False), (3, 16, False)]


def test_a_mask_that_wins_no_pixel_is_no_segment() -> None:
    assert merge(logits((0, 8, 1.0), (0, 8, 0.5)), [0, 1], least_area=0) == ([1] * 8, [(0, 32, True)])


def test_nothing_is_void_everywhere() -> None:
    assert merge(logits()[:0], []) == ([0] * 8, [])
    assert merge(logits((0, 8, 1.0)), [0], least_area=33) == ([0] * 8, [])


def test_queries_compete_by_their_best_class() -> None:
    """Softmax: neither "no object" nor a low score; sigmoid: the best class above the threshold; no padding."""
    probability = torch.tensor([[0.9, 0.05, 0.05], [0.04, 0.9, 0.06], [0.01, 0.01, 0.98], [0.5, 0.4, 0.1]])
    boxes = torch.rand(1, 1, 4, 4)
    softmax = Predictions(logits=probability.log()[None, None], boxes=boxes, softmax=True)
    queries, scores, classes = PanopticMerge(num_things=1).select(softmax, 0)
    assert queries.tolist() == [0, 1] and classes.tolist() == [0, 1]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.9]))
    valid = torch.tensor([[True, True, False, True]])
    sigmoid = Predictions(logits=probability.logit()[None, None], boxes=boxes, valid=valid)
    assert PanopticMerge(num_things=1).select(sigmoid, 0)[0].tolist() == [0, 1]
    assert PanopticMerge(num_things=1, score_threshold=0.45).select(sigmoid, 0)[0].tolist() == [0, 1, 3]
