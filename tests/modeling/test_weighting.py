"""Prime-sample and dual weighting against slow formulas, and where their weights go."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from align_detr.errors import ConfigError
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import DualWeightingLoss, GIoULoss, IABCELoss, L1Loss
from align_detr.modeling.matcher import FocalCost, HungarianMatcher, L1Cost
from align_detr.modeling.weighting import DualWeighting, PrimeSampleWeighting, rank_in_bag
from align_detr.structures import Match, Predictions, Targets
from support.inputs import random_set


def slow_ranks(bag: list[int], quality: list[float], query: list[int]) -> list[int]:
    everyone = list(zip(bag, quality, query, strict=True))
    return [sum(b == own and (-t, q) < (-mine, me) for b, t, q in everyone) for own, mine, me in everyone]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_in_unequal_bags_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    bag = torch.randint(6, (40,), generator=generator) ** 2
    quality = torch.randint(4, (40,), generator=generator) / 4
    query = torch.randperm(40, generator=generator)
    ranks = rank_in_bag(bag, quality, query)
    assert ranks.tolist() == slow_ranks(bag.tolist(), quality.tolist(), query.tolist())
    order = torch.randperm(40, generator=generator)
    assert torch.equal(rank_in_bag(bag[order], quality[order], query[order]), ranks[order])


def test_no_match() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert rank_in_bag(empty, empty.float(), empty).shape == (0,)


@pytest.fixture
def case() -> tuple[Predictions, Targets, Match]:
    """Return two targets, with three queries for the first, of IoU 0.25, 1 and 0.25, and one for the second."""
    boxes = [[0.5, 0.5, 0.2, 0.1], [0.5, 0.5, 0.4, 0.2], [0.5, 0.5, 0.2, 0.1], [0.2, 0.2, 0.1, 0.1]]
    preds = Predictions(logits=torch.zeros(1, 1, 4, 2), boxes=torch.tensor([[boxes]]))
    targets = Targets(
        labels=torch.tensor([[1, 0]]),
        boxes=torch.tensor([[[0.5, 0.5, 0.4, 0.2], [0.2, 0.2, 0.1, 0.1]]]),
        counts=[2],
    )
    zero = torch.zeros(4, dtype=torch.int64)
    return preds, targets, Match(zero, zero, torch.arange(4), torch.tensor([0, 0, 0, 1]))


def test_weights_by_hand(case: tuple[Predictions, Targets, Match]) -> None:
    """The second query fits; the first and third tie and rank by index."""
    weight = PrimeSampleWeighting(tau=2.0)(*case).weight
    assert_close(weight, torch.tensor([math.exp(-0.5), 1.0, math.exp(-1.0), 1.0]))
    assert case[2].weight is None


def test_infinite_tau_weighs_all_copies_alike(case: tuple[Predictions, Targets, Match]) -> None:
    assert PrimeSampleWeighting(tau=math.inf)(*case).weight.tolist() == [1.0] * 4


def test_alpha_shares_quality_between_probability_and_overlap(case: tuple[Predictions, Targets, Match]) -> None:
    preds, targets, match = case
    preds.logits[0, 0, 0, 1] = 3.0
    assert PrimeSampleWeighting(alpha=1.0, tau=1.0)(preds, targets, match).weight[0] == 1
    assert PrimeSampleWeighting(alpha=0.0, tau=1.0)(preds, targets, match).weight[0] < 1


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_predictions_of_half_precision_rank_as_in_float32(alpha: float) -> None:
    """The second query's overlap and logit are larger, by less than bfloat16 tells apart in an IoU or a probability."""
    boxes = [[0.5, 0.5, 0.490234375, 0.5], [0.5, 0.5, 0.494140625, 0.5]]  # IoU 0.980 and 0.988, all exact in bfloat16
    preds = Predictions(
        logits=torch.tensor([[[[6.0], [6.03125]]]]).bfloat16(), boxes=torch.tensor([[boxes]]).bfloat16()
    )
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.5, 0.5]]]).bfloat16(), counts=[1])
    zero = torch.zeros(2, dtype=torch.int64)
    match = Match(zero, zero, torch.arange(2), zero)
    weight = PrimeSampleWeighting(alpha=alpha, tau=1.0)(preds, targets, match).weight
    assert_close(weight, torch.tensor([math.exp(-1.0), 1.0]))


def test_weights_reach_classes_and_boxes(case: tuple[Predictions, Targets, Match]) -> None:
    preds, targets, match = case
    weighted = PrimeSampleWeighting(tau=2.0)(preds, targets, match)
    one = torch.tensor(1.0)
    distance = 0.2 + 0.1  # of the two queries of half the size
    expected = (math.exp(-0.5) + math.exp(-1.0)) * distance
    assert L1Loss()(preds, targets, weighted, one).item() == pytest.approx(expected, rel=1e-5)
    giou = (math.exp(-0.5) + math.exp(-1.0)) * 0.75
    assert GIoULoss()(preds, targets, weighted, one).item() == pytest.approx(giou, rel=1e-5)
    # probability 1/2 everywhere: each matched entry costs log 2 whatever its target, each other one a quarter of it
    logits = preds.logits.requires_grad_()
    IABCELoss()(preds, targets, weighted, one).sum().backward()
    t = 0.5**0.25 * (0.02 / (0.08 + 1e-6)) ** 0.75
    assert logits.grad[0, 0, 0, 1].item() == pytest.approx(0.5 - math.exp(-0.5) * t, rel=1e-4)
    assert logits.grad[0, 0, 2, 1].item() == pytest.approx(0.5 - math.exp(-1.0) * t, rel=1e-4)


def slow_dual_weights(
    preds: Predictions, targets: Targets, match: Match, beta: float, mu: float, bag_mu: float
) -> list[float]:
    """DW's formula, match by match, in Python's numbers."""

    def consistency(row: int, image: int, query: int, target: int) -> float:
        a, b = preds.boxes[row, image, query].double().tolist(), targets.boxes[image, target].double().tolist()
        inter = 1.0
        for i in (0, 1):
            end, start = (pick(x[i] + sign * x[i + 2] / 2 for x in (a, b)) for pick, sign in ((min, 1), (max, -1)))
            inter *= max(end - start, 0)
        iou = inter / (a[2] * a[3] + b[2] * b[3] - inter + 1e-6)
        logit = preds.logits[row, image, query, targets.labels[image, target]].double().item()
        return iou**beta / (1 + math.exp(-logit))

    members = list(zip(*(x.tolist() for x in (match.row, match.image, match.query, match.target)), strict=True))
    weights = []
    for member in members:
        bag = [consistency(*x) for x in members if (x[0], x[1], x[3]) == (member[0], member[1], member[3])]
        t = consistency(*member)
        weights.append(math.exp(mu * t) * t / sum(math.exp(bag_mu * x) * x for x in bag))
    return weights


@pytest.mark.parametrize(("beta", "mu", "bag_mu"), [(5.0, 5.0, None), (2.0, 1.0, 3.0)])
def test_dual_weights_against_the_slow_formula(beta: float, mu: float, bag_mu: float | None) -> None:
    """In bags of one to four queries, two rows and two images."""
    torch.manual_seed(0)
    preds, targets = random_set(rows=2, counts=[2, 1], queries=6, softmax=False)
    with torch.no_grad():  # all overlap
        preds.boxes[..., :2] = 0.5 + 0.1 * torch.rand(2, 2, 6, 2)
        targets.boxes[..., :2], targets.boxes[..., 2:] = 0.5, 0.5
    pairs = [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 2, 1], [0, 1, 0, 0], *([1, 0, query, 1] for query in (3, 4, 5, 0))]
    match = Match(*torch.tensor(pairs).unbind(1))
    found = DualWeighting(beta=beta, mu=mu, bag_mu=bag_mu)(preds, targets, match).weight
    expected = slow_dual_weights(preds, targets, match, beta, mu, mu if bag_mu is None else bag_mu)
    assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    if bag_mu is None:
        assert found[2] == found[3] == 1.0


def test_dual_weights_where_nothing_overlaps(case: tuple[Predictions, Targets, Match]) -> None:
    """Probabilities of 1/2, 3/4 and 3/4 share; with logits beyond any probability the weights are numbers."""
    preds, targets, match = case
    preds.boxes[0, 0, :3, 0] = 5.0
    preds.logits[0, 0, 1:3, 1] = math.log(3)
    assert_close(DualWeighting()(preds, targets, match).weight, torch.tensor([2 / 8, 3 / 8, 3 / 8, 1.0]))
    preds.logits[0, 0, :, :] = -1e4
    assert_close(DualWeighting()(preds, targets, match).weight, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0]))


def test_dual_weights_beyond_float32_are_refused() -> None:
    with pytest.raises(ConfigError, match="mu is 90 and bag_mu 3: weights of up to"):
        DualWeighting(mu=90, bag_mu=3)


def test_dual_weights_reach_classes_and_boxes(case: tuple[Predictions, Targets, Match]) -> None:
    """All with probability 1/2, so that a negative matters by 1/4 at an IoU of 1/4 and not at all at 1."""
    preds, targets, match = case
    weighted = DualWeighting()(preds, targets, match)
    assert weighted.weight[:3].sum().item() == pytest.approx(1.0, rel=1e-5) and weighted.weight[1] > 0.99
    small = weighted.weight[0].item()
    one = torch.tensor(1.0)
    assert L1Loss()(preds, targets, weighted, one).item() == pytest.approx(2 * small * 0.3, rel=1e-4)
    # positives of the two objects: weights of 1 + 1; negatives: the four other entries, two queries of IoU 1/4
    loss = DualWeightingLoss()(preds, targets, weighted, one).item()
    assert loss == pytest.approx((2 + 0.25 * (4 + 2)) * math.log(2), rel=1e-5)


class NothingWaits(TorchDispatchMode):
    """Mode that fails at operators whose result the host would have to know."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.unique")
        assert not str(func).startswith(names), f"{func} would wait for the device"
        if str(func).startswith("aten.index.Tensor"):
            assert not any(x is not None and x.dtype == torch.bool for x in args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weighting", [PrimeSampleWeighting(), DualWeighting()])
def test_no_step_of_the_criterion_waits_for_the_device(
    case: tuple[Predictions, Targets, Match], weighting: torch.nn.Module
) -> None:
    preds, targets, match = case
    preds.logits.requires_grad_()
    criterion = SetCriterion(
        matcher=HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0)], copies={"main": 2}),
        losses=[IABCELoss(), L1Loss(), GIoULoss()],
        weighting=weighting,
    )
    known = Predictions(logits=preds.logits, boxes=preds.boxes, match=match)
    with NothingWaits():
        sum(criterion({"main": preds, "dn": known}, targets).values()).backward()
