"""Assignment of several queries to each object by their quality, by hand and against plain loops."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_iou
from align_detr.modeling import BlendedCost, FocalCost, HungarianMatcher, L1Cost, OneToManyAssigner
from align_detr.modeling import matcher as matcher_module
from align_detr.modeling.matching.limits import FORBIDDEN
from align_detr.structures import Predictions, Targets


def pairs_of(assigner: OneToManyAssigner, quality: list[list[float]]) -> set[tuple[int, int]]:
    """Return the pairs (query, object) of one image in one row: quality of each object (row) and query (column)."""
    row, query, target = assigner.assign(-np.array([quality], dtype=np.float32))
    assert (row == 0).all()
    return set(zip(query.tolist(), target.tolist(), strict=True))


def test_assignment_by_hand() -> None:
    """Queries 0 to 2 are good for object 0; 3 is above 0.4 for both, and better for object 1; 4 and 5 for none, but 5
    is the best for object 2.
    """
    quality = [
        [0.9, 0.4, 0.7, 0.5, 0.1, 0.0],
        [0.0, 0.0, 0.0, 0.6, 0.3, 0.1],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.2],
    ]
    assert pairs_of(OneToManyAssigner(), quality) == {(0, 0), (1, 0), (2, 0), (3, 1), (5, 2)}
    assert pairs_of(OneToManyAssigner(most=2), quality) == {(0, 0), (2, 0), (3, 1), (5, 2)}
    assert pairs_of(OneToManyAssigner(most=1, threshold=0.9), quality) == {(0, 0), (3, 1), (5, 2)}
    assert pairs_of(OneToManyAssigner(threshold=0.2), quality) == {(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)}


def test_a_query_has_one_object() -> None:
    """The only query is the best of both objects, and is the first one's."""
    assert pairs_of(OneToManyAssigner(), [[0.3], [0.2]]) == {(0, 0)}
    assert pairs_of(OneToManyAssigner(most=2), [[0.5, 0.5, 0.5]]) == {(0, 0), (1, 0)}, "equal: the lower index"


def test_an_object_that_may_have_no_query_takes_none_from_another() -> None:
    """Both queries are below the threshold, and the better one is the best of object 0 alone."""
    cost = np.array([[[-0.1, -0.3], [FORBIDDEN, FORBIDDEN]]], dtype=np.float32)
    row, query, target = OneToManyAssigner().assign(cost)
    assert (row.tolist(), query.tolist(), target.tolist()) == ([0], [1], [0])


def slow_pairs(cost: np.ndarray, counts: list[int], skipped: tuple[int, ...], most: int) -> set[tuple[int, ...]]:
    """Return what the docstring of the assigner says, object after object."""
    found, start = set(), 0
    for image, n in enumerate(counts):
        own = cost[:, start : start + n]
        start += n
        for row in range(len(cost) if n and image not in skipped else 0):
            owner = [min(range(n), key=lambda t, q=q: own[row, t, q]) for q in range(cost.shape[2])]
            may_have = [t for t in range(n) if min(own[row, t]) < FORBIDDEN]
            best_of = {min(range(cost.shape[2]), key=lambda q, t=t: own[row, t, q]) for t in may_have}
            for target in range(n):
                mine = [q for q, t in enumerate(owner) if t == target and own[row, t, q] < FORBIDDEN]
                mine = [q for q in mine if own[row, target, q] <= -0.4 or q in best_of]
                mine.sort(key=lambda q: (own[row, target, q], q))
                found |= {(row, image, q, target) for q in mine[:most]}
    return found


@pytest.mark.parametrize("most", [1, 3, 6])
def test_every_row_and_image(most: int) -> None:
    """Images of several sizes, one without objects, one skipped, ties, and pairs that may not be."""
    counts, generator = [3, 0, 5, 2], np.random.default_rng(0)
    cost = -generator.integers(0, 12, (4, 10, 20)).astype(np.float32) / 20
    cost[:, :3, 5:9] = FORBIDDEN
    found = OneToManyAssigner(most=most).assign_all(cost, counts, skipped=(3,))
    assert {tuple(pair) for pair in found.T.tolist()} == slow_pairs(cost, counts, (3,), most)
    assert found.shape[1] == len({tuple(pair) for pair in found[:3].T.tolist()}), "a query has one object"
    assert (np.lexsort((found[2], found[1], found[0])) == np.arange(found.shape[1])).all()
    assert OneToManyAssigner().assign_all(cost[:, :0], [0, 0]).shape == (4, 0)


def predictions(rows: int = 2, **fields: object) -> Predictions:
    torch.manual_seed(0)
    return Predictions(logits=torch.randn(rows, 2, 9, 3), boxes=torch.rand(rows, 2, 9, 4) * 0.5 + 0.2, **fields)


def targets() -> Targets:
    """Return three objects in the first of two images of side 10, and one in the second."""
    corners = torch.tensor([[1.0, 1, 5, 5], [4, 4, 8, 9], [2, 3, 6, 7]])
    instances = [Instances((10, 10), gt_boxes=Boxes(corners[:n]), gt_classes=torch.arange(3)[:n]) for n in (3, 1)]
    return Targets.from_instances(instances, num_classes=3, device="cpu")


def test_cost_is_the_blend_of_overlap_and_probability() -> None:
    preds, truth = predictions(), targets()
    found = BlendedCost(weight=1.0, share=0.7)(preds, truth)  # (R, B, Q, T)
    overlap = pairwise_iou(cxcywh_to_xyxy(preds.boxes), cxcywh_to_xyxy(truth.boxes)[None])
    scores = torch.stack([preds.logits[:, b][..., truth.labels[b]].sigmoid() for b in range(2)], dim=1)
    assert_close(found, -0.7 * overlap - 0.3 * scores, atol=1e-6, rtol=1e-5)


def matcher() -> HungarianMatcher:
    return HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0)], copies={"main": 2})


def test_the_matcher_obeys_a_set_s_assigner(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pairs of the assigner for its set, those of the solver for the others, and one copy to the host; a
    query that is padding has no object.
    """
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, :4] = False
    assigner, truth = OneToManyAssigner(threshold=0.2, most=2), targets()
    plain, many = predictions(), predictions(assigner=assigner, valid=valid)
    copies, copy = [], matcher_module.copy_to_host
    monkeypatch.setattr(matcher_module, "copy_to_host", lambda tensors: copies.append(len(tensors)) or copy(tensors))
    matches = matcher()({"main": plain, "o2m": many}, truth)
    assert len(copies) == 1
    alone = matcher()({"main": plain}, truth)["main"]
    assert torch.equal(matches["main"].query, alone.query) and torch.equal(matches["main"].target, alone.target)
    cost = BlendedCost(weight=1.0)(plain, truth).masked_fill(~valid[..., None], FORBIDDEN)
    cost = torch.cat([cost[:, b, :, :n].transpose(1, 2) for b, n in enumerate(truth.counts)], dim=1).numpy()
    found = matches["o2m"]
    pairs = zip(*(x.tolist() for x in (found.row, found.image, found.query, found.target)), strict=True)
    expected = assigner.assign_all(cost, truth.counts)
    assert set(pairs) == {tuple(pair) for pair in expected.T.tolist()} and len(found) > len(alone) / 2
    assert valid[found.image, found.query].all()


def test_misfits_are_named() -> None:
    with pytest.raises(ConfigError, match="names the set 'main', which an assigner of its own matches"):
        matcher()({"main": predictions(assigner=OneToManyAssigner())}, targets())
    with pytest.raises(ConfigError, match="BlendedCost reads sigmoid logits"):
        HungarianMatcher(costs=[L1Cost(weight=1.0)])(
            {"o2m": predictions(assigner=OneToManyAssigner(), softmax=True)}, targets()
        )
    for wrong in ({"threshold": 2.0}, {"most": 0}, {"share": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            OneToManyAssigner(**wrong)
