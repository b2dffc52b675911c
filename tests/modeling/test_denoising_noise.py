"""The noise of denoising queries by hand, and their places: groups, empty images, the cap."""

import pytest
import torch
from torch.testing import assert_close

from align_detr.modeling.queries.noise import Draws, contrast_boxes, flip_labels, jitter_boxes, lay_out


def draws_of(flip: float, box: float, sign: float = 1.0, copies: int = 2) -> Draws:
    return Draws(
        flip=torch.full((copies, 1), flip),
        label=torch.full((copies, 1), 7),
        box=torch.full((copies, 1, 4), box),
        sign=torch.full((copies, 1, 4), sign),
    )


def test_labels_flip_below_the_probability() -> None:
    labels = torch.tensor([[1], [2]])
    assert flip_labels(labels, draws_of(0.2, 0.0), 0.2).tolist() == [[1], [2]]
    assert flip_labels(labels, draws_of(0.19, 0.0), 0.2).tolist() == [[7], [7]]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(0.5, [0.5, 0.5, 0.2, 0.4]), (0.0, [0.46, 0.42, 0.12, 0.24]), (1.0, [0.54, 0.58, 0.28, 0.56])],
)
def test_jitter_by_hand(draw: float, expected: list[float]) -> None:
    """Reach 0.4: the centre moves by up to 0.4 x half the size, the size by up to 0.4 of itself."""
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(2, 1, 4)
    assert_close(jitter_boxes(boxes, draws_of(1.0, draw), 0.4)[0, 0], torch.tensor(expected))


def test_jitter_stays_in_the_image() -> None:
    boxes = torch.tensor([0.95, 0.05, 0.9, 0.1]).expand(2, 1, 4)
    assert_close(jitter_boxes(boxes, draws_of(1.0, 1.0), 0.4)[0, 0], torch.tensor([1.0, 0.07, 1.0, 0.14]))


def test_contrast_by_hand() -> None:
    """A quarter of half the size at the positive copy, one and a quarter at the negative one, all edges to the right
    and down: the size stays, the centre moves.
    """
    boxes = torch.tensor([0.4, 0.4, 0.2, 0.4]).expand(2, 1, 4)
    positive, negative = contrast_boxes(boxes, draws_of(1.0, 0.25), 1.0)
    assert_close(positive[0], torch.tensor([0.425, 0.45, 0.2, 0.4]))
    # x edges 0.3 and 0.5 go to 0.425 and 0.625; y edges 0.2 and 0.6 to 0.45 and 0.85
    assert_close(negative[0], torch.tensor([0.525, 0.65, 0.2, 0.4]))


def test_noise_leaves_its_inputs_as_they_are() -> None:
    draws, boxes = draws_of(1.0, 0.25), torch.tensor([0.4, 0.4, 0.2, 0.4]).repeat(2, 1, 1)
    for noise in (contrast_boxes, jitter_boxes):
        noise(boxes, draws, 1.0)
        assert (draws.box == 0.25).all() and torch.equal(boxes[1, 0], torch.tensor([0.4, 0.4, 0.2, 0.4]))


def test_far_contrast_swaps_edges() -> None:
    draws = draws_of(1.0, 0.5)
    draws.sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(2, 1, 4)  # all edges inwards
    negative = contrast_boxes(torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(2, 1, 4), draws, 1.0)[1, 0]
    assert_close(negative, torch.tensor([0.5, 0.5, -0.1, -0.2]))


def test_contrast_stays_in_the_image() -> None:
    """Edges 0.3 and 0.7 in x go to 0.5 and 0.9, edges 0.5 and 0.9 in y to 0.7 and 1.1, which is cut to 1."""
    positive = contrast_boxes(torch.tensor([0.5, 0.7, 0.4, 0.4]).expand(2, 1, 4), draws_of(1.0, 1.0), 1.0)[0, 0]
    assert_close(positive, torch.tensor([0.7, 0.85, 0.4, 0.3]))


def test_layout_by_hand() -> None:
    """Two groups of two queries: image 0 has two objects, image 1 one, whose second query stays empty."""
    layout = lay_out([2, 1], groups=2, copies=1, max_queries=100)
    assert layout.index.tolist() == [[[0, 0, 1]] * 2, [[0, 1, 0]] * 2, [[0, 1, 0], [2, 3, 2]]]
    assert (layout.num_queries, layout.groups, layout.width, layout.left_out) == (4, 2, 2, 0)


@pytest.mark.parametrize(
    ("counts", "groups", "copies", "cap", "queries", "groups_left", "left_out"),
    [
        ([3, 1], 5, 1, 15, 15, 5, 0),
        ([3, 1], 5, 1, 14, 12, 4, 0),  # groups go first
        ([3, 1], 5, 1, 2, 2, 1, 1),  # then objects of the image that has too many
        ([3, 1], 3, 2, 13, 12, 2, 0),
        ([3, 1], 1, 2, 5, 4, 1, 1),
        ([0, 0], 5, 1, 10, 0, 5, 0),
        ([1000, 900], 5, 1, 500, 500, 1, 900),
        ([300], 1, 2, 200, 200, 1, 200),
    ],
)
def test_cap(
    counts: list[int], groups: int, copies: int, cap: int, queries: int, groups_left: int, left_out: int
) -> None:
    layout = lay_out(counts, groups, copies, cap)
    assert (layout.num_queries, layout.groups, layout.left_out) == (queries, groups_left, left_out)
    assert layout.index.shape == (3, groups_left * copies, sum(counts) - left_out)
    image, target, query = layout.index
    assert (target < [[counts[b] for b in image[0]]]).all()
    slots = {(int(b), int(q)) for b, q in zip(image.ravel(), query.ravel(), strict=True)}
    assert len(slots) == image.size, "no query is taken twice"
    assert image.size == 0 or query.max() < queries


def test_crowded_image_takes_part_with_random_objects() -> None:
    torch.manual_seed(0)
    seen = {tuple(lay_out([6], 1, 1, 2).index[1, 0].tolist()) for _ in range(200)}
    assert seen == {(i, j) for i in range(6) for j in range(i + 1, 6)}
