"""Matching and losses of points on numbers a reader can redo, and against other forms."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.boxes import generalized_box_iou
from align_detr.modeling.losses import IABCELoss, SetLoss
from align_detr.modeling.matching.limits import Limits
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.projects.tsp.fcos import losses as fcos_losses
from align_detr.projects.tsp.fcos.assign import Assignment
from align_detr.projects.tsp.fcos.geometry import centerness, point_giou
from align_detr.projects.tsp.fcos.head import AssignedPredictions
from align_detr.projects.tsp.fcos.losses import CenternessLoss, DenseFocalLoss, PointGIoULoss, RestrictedFocalLoss
from align_detr.projects.tsp.fcos.matching import CenternessClassCost, PointOwnerMatcher
from align_detr.projects.tsp.fcos.points import Points
from align_detr.projects.tsp.fcos.selection import FoIs
from align_detr.structures import Match, Predictions, Targets
from support.inputs import padded_costs
from support.tsp_fcos import criterion, matcher


def random_points(owner: Tensor, num_targets: list[int], num_classes: int = 3) -> tuple[AssignedPredictions, Targets]:
    """Return predictions of points at random locations; `owner` (B, Q) are their objects."""
    images, queries = owner.shape
    longest = max([1, *num_targets])
    fois = FoIs(
        index=torch.arange(queries).expand(images, -1),
        valid=None,
        locations=torch.rand(images, queries, 2) * 100,
        strides=torch.full((images, queries), 8.0),
        levels=torch.zeros(images, queries, dtype=torch.int64),
        image_sizes=[(100, 100)] * images,
    )
    objects = torch.rand(images, longest, 4) * 0.4 + 0.1
    preds = AssignedPredictions(
        logits=torch.randn(1, images, queries, num_classes, requires_grad=True),
        boxes=torch.rand(1, images, queries, 4) * 0.4 + 0.1,
        distances=(torch.rand(1, images, queries, 4) * 3).requires_grad_(),
        centerness=torch.randn(1, images, queries, requires_grad=True),
        fois=fois,
        owner=owner,
        allowed=owner[..., None] == torch.arange(longest),
        target_distances=torch.rand(images, queries, longest, 4) * 3 + 0.1,
    )
    labels = torch.randint(num_classes, (images, longest))
    return preds, Targets(labels=labels, boxes=objects, counts=num_targets)


def pairs_of(match: Match) -> set[tuple[int, int, int]]:
    return set(zip(match.image.tolist(), match.target.tolist(), match.query.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_with_one_owner_a_point_matching_is_each_objects_cheapest_point(seed: int) -> None:
    torch.manual_seed(seed)
    preds, targets = random_points(torch.randint(-1, 6, (3, 30)), [6, 4, 6])
    preds.owner[1] = torch.where(preds.owner[1] < 4, preds.owner[1], -1)  # two of its six are padding
    preds.owner[2, preds.owner[2] == 3] = -1  # this object has no point
    preds.allowed = preds.owner[..., None] == torch.arange(6)
    cost = padded_costs(matcher(), preds, targets)[0]
    expected = set()
    for image, n in enumerate(targets.counts):
        for target in range(n):
            own = (preds.owner[image] == target).nonzero().flatten().tolist()
            if own:
                expected.add((image, target, min(own, key=lambda query: cost[image, query, target])))
    assert pairs_of(matcher()({"main": preds}, targets)["main"]) == expected


def test_shared_points_are_matched_one_to_one() -> None:
    """Two objects that share two points get one each, such that the sum of costs is smallest."""
    preds, targets = random_points(torch.zeros(1, 2, dtype=torch.int64), [2])
    preds.allowed = torch.ones(1, 2, 2, dtype=torch.bool)
    cost = padded_costs(matcher(), preds, targets)[0, 0]
    straight, crossed = cost[0, 0] + cost[1, 1], cost[0, 1] + cost[1, 0]
    expected = {(0, 0, 0), (0, 1, 1)} if straight < crossed else {(0, 0, 1), (0, 1, 0)}
    assert pairs_of(matcher()({"main": preds}, targets)["main"]) == expected


def test_cost_by_hand() -> None:
    preds, targets = random_points(torch.zeros(1, 1, dtype=torch.int64), [1], num_classes=1)
    preds.logits = torch.zeros(1, 1, 1, 1)
    preds.distances = torch.full((1, 1, 1, 4), 2.0)
    preds.target_distances = torch.tensor([1.0, 1.0, 3.0, 1.0]).view(1, 1, 1, 4)
    # Centerness sqrt(1/3). Intersection (1 + 2) x (1 + 1) = 6, union 16 + 8 - 6 = 18, hull (2 + 3) x (2 + 2) = 20.
    expected = -0.5 * (math.sqrt(1 / 3) + 1e-6) + 2 * (1 - (7 / 19 - 2 / 20))
    assert_close(padded_costs(matcher(), preds, targets).flatten(), torch.tensor([expected]))


def test_at_the_edge_of_a_box_the_more_probable_point_still_costs_less() -> None:
    preds, targets = random_points(torch.zeros(1, 2, dtype=torch.int64), [1], num_classes=1)
    preds.logits = torch.tensor([0.0, math.log(3)]).view(1, 1, 2, 1)  # probabilities 1/2 and 3/4
    preds.target_distances = torch.tensor([0.0, 1.0, 4.0, 1.0]).expand(1, 2, 1, 4)
    cost = CenternessClassCost(weight=1.0)(preds, targets)
    assert_close(cost.flatten(), torch.tensor([-0.5e-6, -0.75e-6]), rtol=1e-5, atol=0)


def test_point_giou_is_giou() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 50, 4, dtype=torch.float64) * 5
    boxes = [torch.cat([-x[:, :2], x[:, 2:]], dim=1) for x in (a, b)]
    assert_close(point_giou(a, b, smooth=0.0), generalized_box_iou(*boxes))
    assert_close(point_giou(a, a), torch.ones(50, dtype=torch.float64))
    assert (point_giou(a, b) >= point_giou(a, b, smooth=0.0)).all()
    nothing = torch.zeros(1, 4, requires_grad=True)
    for smooth in (0.0, 1.0):
        value = point_giou(nothing, torch.zeros(1, 4), smooth)
        assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value.sum(), nothing)[0]).all()


def test_centerness_by_hand() -> None:
    sides = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 2.0], [-1.0, 1.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert_close(centerness(sides), torch.tensor([1.0, 0.5, 0.0, 0.0]))


def test_class_loss_by_hand() -> None:
    """Of three points, two belong to one object, one of them is matched; there are two classes and all logits are 0."""
    preds, targets = random_points(torch.tensor([[0, 0, -1]]), [1], num_classes=2)
    targets.labels[:] = 1
    preds.logits = torch.zeros(1, 1, 3, 2)
    zero = torch.zeros(1, dtype=torch.int64)
    match = Match(zero, zero, zero, zero)
    positive, negative = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    total = positive + (1 + 1 + 0.1 + 2) * negative  # own class of the unmatched point: a tenth
    loss = RestrictedFocalLoss()(preds, targets, match, torch.tensor(1.0))
    assert_close(loss, torch.tensor([total / (2 * 1 + 0.2 * 2)]))
    weighted = RestrictedFocalLoss()(preds, targets, replace(match, weight=torch.tensor([0.5])), torch.tensor(1.0))
    assert_close(weighted, torch.tensor([(total - positive / 2) / 2.4]))


@pytest.mark.parametrize("num_classes", [1, 3])
def test_dense_loss_by_hand(num_classes: int) -> None:
    """Of three points with logits 0, two belong to objects of class 2.

    A classifier of one class learns that they belong to objects, one of three classes that the class is 2.
    """
    labels = torch.tensor([[2, -1, 2]])
    logits = torch.zeros(1, 3, num_classes, requires_grad=True)
    points = Points(torch.empty(0), logits, *[torch.empty(0)] * 6, image_sizes=[])
    loss = DenseFocalLoss(weight=3.0)(points, Assignment(torch.empty(0), labels, labels, torch.empty(0)))
    positive, negative = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    assert_close(loss, torch.tensor(3 * (2 * positive + (3 * num_classes - 2) * negative) / 2))
    loss.backward()
    raised = logits.grad[0] < 0
    assert raised.any(-1).tolist() == [True, False, True] and raised[:, -1].tolist() == [True, False, True]


def test_losses_of_boxes_are_means_over_the_points_of_objects() -> None:
    torch.manual_seed(0)
    preds, targets = random_points(torch.tensor([[0, 1, -1, 1], [-1, -1, 0, -1]]), [2, 1])
    preds.valid = torch.tensor([[True, True, True, False], [True, True, True, True]])
    losses = criterion().foreground({"main": preds}, targets)
    own = [(0, 0, 0), (0, 1, 1), (1, 2, 0)]
    wanted = torch.stack([preds.target_distances[i] for i in own])
    found = torch.stack([preds.distances[0, b, q] for b, q, _ in own])
    c = centerness(wanted)
    assert_close(losses["loss_giou"], (c * (1 - point_giou(found, wanted))).sum() / c.sum())
    logits = torch.stack([preds.centerness[0, b, q] for b, q, _ in own])
    assert_close(losses["loss_centerness"], F.binary_cross_entropy_with_logits(logits, c))
    grads = torch.autograd.grad(sum(losses.values()), [preds.distances, preds.centerness])
    for grad in grads:
        touched = grad.reshape(1, 2, 4, -1).ne(0).any(-1)[0]
        assert touched.tolist() == [[True, True, False, False], [False, False, True, False]]


def test_each_normaliser_is_a_mean_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the other process has three times as many points, the mean doubles, and each loss is half."""
    torch.manual_seed(0)
    preds, targets = random_points(torch.tensor([[0, 1, -1, 1, 0], [-1, -1, 0, 0, 0]]), [2, 1])
    match = matcher()({"main": preds}, targets)["main"]
    owned = PointOwnerMatcher()({"main": preds}, targets)["main"]
    points = Points(torch.empty(0), torch.randn(2, 5, 3), *[torch.empty(0)] * 6, image_sizes=[])
    assignment = Assignment(torch.empty(0), preds.owner, preds.owner, torch.empty(0))

    def losses() -> Tensor:
        one = torch.tensor(1.0)
        return torch.stack(
            [
                RestrictedFocalLoss()(preds, targets, match, one).sum(),
                RestrictedFocalLoss(matched_norm=1.0, foreground_norm=0.0)(preds, targets, match, one).sum(),
                PointGIoULoss()(preds, targets, owned, one).sum(),
                CenternessLoss()(preds, targets, owned, one).sum(),
                DenseFocalLoss()(points, assignment),
            ]
        )

    alone = losses()
    monkeypatch.setattr(fcos_losses, "mean_over_ranks", lambda values: 2 * values)
    assert_close(losses(), alone / 2)


def test_background_never_reaches_a_gradient() -> None:
    """This holds even if its distances to an object are not those of any box."""
    preds, targets = random_points(torch.full((1, 5), -1), [1])
    preds.target_distances = torch.full_like(preds.target_distances, -1e30)
    match = PointOwnerMatcher()({"main": preds}, targets)["main"]
    assert len(match) == 5 and (match.weight == 0).all()
    for loss in (PointGIoULoss(), CenternessLoss()):
        value = loss(preds, targets, match, torch.tensor(1.0)).sum()
        assert value == 0
        for grad in torch.autograd.grad(value, [preds.distances, preds.centerness], allow_unused=True):
            assert grad is None or (grad == 0).all()


def test_align_losses_take_the_same_set() -> None:
    """Each object has up to three of its points, weighted by rank."""
    torch.manual_seed(0)
    preds, targets = random_points(torch.tensor([[0, 0, 0, 0, 1, -1, -1, -1, -1, -1, -1, -1]]), [2])
    solver = matcher()
    solver.limits = Limits({"main": 3})
    match = PrimeSampleWeighting()(preds, targets, solver({"main": preds}, targets)["main"])
    assert match.target.bincount().tolist() == [3, 1]
    weights = match.weight[match.target == 0].sort(descending=True).values
    assert_close(weights, torch.exp(-torch.arange(3) / 1.5))
    loss = IABCELoss()(preds, targets, match, torch.tensor(2.0))
    assert torch.isfinite(loss).all() and torch.autograd.grad(loss.sum(), preds.logits)[0].ne(0).all()


@pytest.mark.parametrize("part", [PointGIoULoss(), CenternessLoss(), RestrictedFocalLoss()])
def test_a_loss_of_points_in_another_detector_is_a_config_error(part: SetLoss) -> None:
    preds = Predictions(logits=torch.zeros(1, 1, 2, 3), boxes=torch.full((1, 1, 2, 4), 0.5))
    targets = Targets(labels=torch.zeros(1, 1, dtype=torch.int64), boxes=torch.full((1, 1, 4), 0.5), counts=[1])
    with pytest.raises(ConfigError, match=r"reads AssignedPredictions, but the model predicts Predictions: remove it"):
        part(preds, targets, Match.empty("cpu"), torch.tensor(1.0))
