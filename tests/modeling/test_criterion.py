"""Names, normalisation and limits of the set criterion."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, IABCELoss, IoUBranchLoss, L1Loss, SoftmaxCrossEntropy
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import Match, Predictions, Targets
from support.inputs import random_set, softmax_criterion
from support.processes import in_two_processes


@pytest.fixture
def criterion() -> SetCriterion:
    torch.manual_seed(0)
    return softmax_criterion()


def test_losses_by_hand(criterion: SetCriterion) -> None:
    """One target of class 0, two queries, one class: uniform logits, so each query costs log 2, weighted 1 and 0.1."""
    preds = Predictions(
        logits=torch.zeros(1, 1, 2, 2),
        boxes=torch.tensor([[[[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]]]]),
        softmax=True,
    )
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    losses = criterion({"main": preds}, targets)
    assert_close(losses["loss_class"], torch.tensor(math.log(2)))
    assert_close(losses["loss_bbox"], torch.tensor(5 * 0.2))
    assert_close(losses["loss_giou"], torch.tensor(2 * 0.5))


def test_names_do_not_depend_on_the_data(criterion: SetCriterion) -> None:
    expected = {f"loss_{loss}{row}" for loss in ("class", "bbox", "giou") for row in ("", "_0", "_1")}
    for counts in ([3, 1], [0, 2], [0, 0], [9, 9]):
        preds, targets = random_set(rows=3, counts=counts, queries=5)
        assert set(criterion({"main": preds}, targets)) == expected


def test_names_of_other_sets(criterion: SetCriterion) -> None:
    main, targets = random_set(rows=2, counts=[1], queries=3)
    proposals, _ = random_set(rows=1, counts=[1], queries=4)
    names = set(criterion({"main": main, "enc": proposals, "o2m": main}, targets))
    assert {"loss_class", "loss_class_0", "loss_class_enc", "loss_giou_o2m", "loss_giou_o2m_0"} <= names
    assert len(names) == 3 * 5


def test_set_weights(criterion: SetCriterion) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    plain = criterion({"o2m": preds}, targets)
    criterion.set_weights = {"o2m": 0.5}
    for name, value in criterion({"o2m": preds}, targets).items():
        assert_close(value, plain[name] * 0.5)


def test_groups_of_a_layer_are_averaged(criterion: SetCriterion) -> None:
    """Two layers of two groups: each layer's loss is the mean of what its groups would give alone."""
    preds, targets = random_set(rows=4, counts=[2, 1], queries=3)
    preds.groups = 2
    losses = criterion({"main": preds}, targets)
    preds.groups = 1
    alone = criterion({"main": preds}, targets)
    assert_close(losses["loss_bbox_0"], (alone["loss_bbox_0"] + alone["loss_bbox_1"]) / 2)
    assert_close(losses["loss_bbox"], (alone["loss_bbox_2"] + alone["loss_bbox"]) / 2)


@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [12, 0]])
def test_empty_images_give_finite_losses_and_gradients(criterion: SetCriterion, counts: list[int]) -> None:
    preds, targets = random_set(rows=2, counts=counts, queries=5)
    total = sum(criterion({"main": preds}, targets).values())
    total.backward()
    for tensor in (total, preds.logits.grad, preds.boxes.grad):
        assert tensor is not None and torch.isfinite(tensor).all()
    assert preds.logits.grad.abs().sum() > 0


def test_extreme_logits_and_boxes(criterion: SetCriterion) -> None:
    preds, targets = random_set(rows=1, counts=[3], queries=4)
    with torch.no_grad():
        preds.logits[..., 0] = 1e4
        preds.logits[..., 1] = -1e4
        preds.boxes[:, :, :2] = torch.tensor([0.5, 0.5, 0.0, 0.0])
        targets.boxes[:, 0] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    losses = criterion({"main": preds}, targets)
    sum(losses.values()).backward()
    for tensor in (*losses.values(), preds.logits.grad, preds.boxes.grad):
        assert torch.isfinite(tensor).all()


def test_float32_under_autocast(criterion: SetCriterion) -> None:
    preds, targets = random_set(rows=2, counts=[2, 1], queries=5)
    expected = criterion({"main": preds}, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name, value in criterion({"main": preds}, targets).items():
            assert value.dtype == torch.float32
            assert_close(value, expected[name], rtol=0, atol=0)


def losses_of_a_process(rank: int) -> tuple[list[str], float, bool]:
    torch.manual_seed(0)
    preds, targets = random_set(rows=1, counts=[5] if rank else [0], queries=6)
    losses = softmax_criterion()({"main": preds}, targets)
    sum(losses.values()).backward()
    return sorted(losses), losses["loss_bbox"].item(), bool(torch.isfinite(preds.boxes.grad).all())


def test_two_processes_share_one_normaliser(tmp_path: Path) -> None:
    """Rank 0 has no object and rank 1 five: both divide by 2.5 and report the same names."""
    (names0, empty, finite0), (names1, full, finite1) = in_two_processes(losses_of_a_process, tmp_path)
    assert names0 == names1 and finite0 and finite1
    torch.manual_seed(0)
    preds, targets = random_set(rows=1, counts=[5], queries=6)
    alone = softmax_criterion()({"main": preds}, targets)["loss_bbox"].item()
    assert empty == 0 and full == pytest.approx(alone * 5 / 2.5, rel=1e-5)


def test_denoising_without_queries_reports_zeros(criterion: SetCriterion) -> None:
    preds, targets = random_set(rows=2, counts=[0, 0], queries=3)
    nothing = Predictions(
        logits=preds.logits[:, :, :0], boxes=preds.boxes[:, :, :0], softmax=True, match=Match.empty("cpu")
    )
    losses = criterion({"main": preds, "dn": nothing}, targets)
    sum(losses.values()).backward()
    expected = {f"loss_{loss}_dn{row}" for loss in ("class", "bbox", "giou") for row in ("", "_0")}
    assert {name for name in losses if "dn" in name} == expected
    assert all(losses[name].item() == 0 for name in expected)


def test_labels_stay_as_they_are_in_class_agnostic_sets(criterion: SetCriterion) -> None:
    preds, targets = random_set(rows=1, counts=[3], queries=4)
    preds.class_agnostic = True
    targets.labels[:] = 2
    value = criterion({"enc": preds}, targets)["loss_class_enc"]
    assert targets.labels.tolist() == [[2, 2, 2]]
    zeros = Targets(labels=torch.zeros_like(targets.labels), boxes=targets.boxes, counts=[3])
    preds.class_agnostic = False
    assert_close(value, criterion({"enc": preds}, zeros)["loss_class_enc"], rtol=0, atol=0)


def test_weighting_is_for_solved_sets(criterion: SetCriterion) -> None:
    class Double(torch.nn.Module):
        def forward(self, preds: Predictions, targets: Targets, match: Match) -> Match:
            return dataclasses.replace(match, weight=torch.full((len(match),), 2.0))

    preds, targets = random_set(rows=1, counts=[2], queries=3)
    known = dataclasses.replace(preds, match=criterion.matcher({"main": preds}, targets)["main"])
    plain = criterion({"main": preds, "dn": known}, targets)
    criterion.weighting = Double()
    weighted = criterion({"main": preds, "dn": known}, targets)
    assert_close(weighted["loss_bbox"], 2 * plain["loss_bbox"])
    assert_close(weighted["loss_bbox_dn"], plain["loss_bbox_dn"], rtol=0, atol=0)


class PlainLoss(torch.nn.Module):
    """A loss that is no SetLoss."""

    name, weight = "plain", 1.0

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: torch.Tensor) -> torch.Tensor:
        return preds.boxes.sum((1, 2, 3))


class PlainCost(torch.nn.Module):
    """A cost that is no Cost: the distance of the centres."""

    weight = 1.0

    def forward(self, preds: Predictions, targets: Targets) -> torch.Tensor:
        return torch.cdist(preds.boxes[..., :2], targets.boxes[..., :2])


class PlainWeighting(torch.nn.Module):
    """A weighting that is no PrimeSampleWeighting."""

    def forward(self, preds: Predictions, targets: Targets, match: Match) -> Match:
        return match


def plain_criterion() -> SetCriterion:
    return SetCriterion(matcher=HungarianMatcher(costs=[PlainCost()]), losses=[PlainLoss()], weighting=PlainWeighting())


def test_parts_are_any_modules() -> None:
    """Without a word about logits, a loss, a cost and a weighting read either kind; so does one with a layer of that
    name.
    """
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    for softmax in (True, False):
        preds.softmax, criterion = softmax, plain_criterion()
        assert_close(criterion({"main": preds}, targets), {"loss_plain": preds.boxes.sum()})
        criterion.weighting.softmax = torch.nn.Softmax(-1)
        assert_close(criterion({"main": preds}, targets), {"loss_plain": preds.boxes.sum()})


@pytest.mark.parametrize("kind", ["loss", "cost", "weighting"])
def test_any_module_may_name_its_kind_of_logits(kind: str) -> None:
    criterion = plain_criterion()
    parts = {"loss": criterion.losses[0], "cost": criterion.matcher.costs[0], "weighting": criterion.weighting}
    parts[kind].softmax = True
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    criterion({"main": preds}, targets)
    preds.softmax = False
    with pytest.raises(ConfigError, match=rf"Plain{kind.title()} reads softmax logits .*, but the set 'main' has sigm"):
        criterion({"main": preds}, targets)


def test_names_that_cannot_be(criterion: SetCriterion) -> None:
    with pytest.raises(ConfigError, match="two losses named 'class'"):
        SetCriterion(matcher=criterion.matcher, losses=[SoftmaxCrossEntropy(), SoftmaxCrossEntropy()])
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    criterion.set_weights = {"one2many": 0.5}
    with pytest.raises(ConfigError, match="names the set 'one2many', but the model predicts main"):
        criterion({"main": preds}, targets)


def skipping_criterion(softmax: bool) -> SetCriterion:
    """Return Align-DETR's criterion, or one for softmax heads, with copies, that skips non-finite images."""
    class_cost = SoftmaxCost(weight=1.0) if softmax else FocalCost(weight=2.0)
    costs = [class_cost, L1Cost(weight=5.0), GIoUCost(weight=2.0)]
    return SetCriterion(
        matcher=HungarianMatcher(costs=costs, copies={"main": 2}, on_nonfinite="skip"),
        losses=[SoftmaxCrossEntropy() if softmax else IABCELoss(), L1Loss(), GIoULoss(), IoUBranchLoss()],
        weighting=None if softmax else PrimeSampleWeighting(),
    )


def test_losses_for_another_kind_of_head() -> None:
    """One sentence that names what does not fit: a loss, a loss on a known match, the weighting."""
    preds, targets = random_set(rows=1, counts=[2], queries=3, softmax=False)
    agnostic = HungarianMatcher(costs=[L1Cost(weight=1.0)])
    criterion = SetCriterion(matcher=agnostic, losses=[SoftmaxCrossEntropy()])
    with pytest.raises(ConfigError, match="SoftmaxCrossEntropy reads softmax .* the set 'main' has sigmoid"):
        criterion({"main": preds}, targets)
    preds.softmax = True
    criterion = SetCriterion(matcher=agnostic, losses=[L1Loss()], weighting=PrimeSampleWeighting())
    with pytest.raises(ConfigError, match="PrimeSampleWeighting reads sigmoid .* has softmax"):
        criterion({"main": preds}, targets)
    preds.match = Match(*torch.zeros(4, 1, dtype=torch.int64))
    criterion({"dn": preds}, targets)
    criterion = SetCriterion(matcher=agnostic, losses=[IABCELoss()])
    with pytest.raises(ConfigError, match="IABCELoss reads sigmoid .* the set 'dn' has softmax"):
        criterion({"dn": preds}, targets)


@pytest.mark.parametrize("broken", ["main", "dn", "iou"])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_skipped_image_takes_no_part(broken: str, softmax: bool) -> None:
    """All losses are those of the batch without it; its gradient is zero, not NaN."""
    torch.manual_seed(0)
    criterion = skipping_criterion(softmax)
    counts, kept = [2, 3, 1], [0, 2]
    main, targets = random_set(rows=2, counts=counts, queries=6, softmax=softmax)
    dn, _ = random_set(rows=2, counts=counts, queries=4, softmax=softmax)
    main.iou = torch.randn(2, 3, 6)
    pairs = torch.tensor([[r, b, t, t] for r in range(2) for b, n in enumerate(counts) for t in range(n)])
    dn.match = Match(*pairs.unbind(1))
    with torch.no_grad():
        {"main": main.logits, "dn": dn.boxes, "iou": main.iou}[broken][1, 1, 2] = float("nan")
    losses = criterion({"main": main, "dn": dn}, targets)
    sum(losses.values()).backward()

    few = pairs[pairs[:, 1] != 1]
    few[:, 1] = few[:, 1].clamp(max=1)
    alone = {
        name: Predictions(
            logits=x.logits[:, kept],
            boxes=x.boxes[:, kept],
            iou=None if x.iou is None else x.iou[:, kept],
            softmax=softmax,
        )
        for name, x in (("main", main), ("dn", dn))
    }
    alone["dn"].match = Match(*few.unbind(1))
    fewer = Targets(labels=targets.labels[kept], boxes=targets.boxes[kept], counts=[2, 1])
    for name, value in criterion(alone, fewer).items():
        assert_close(losses[name], value)
    for tensor in (main.logits, main.boxes, dn.logits, dn.boxes):
        assert torch.isfinite(tensor.grad).all() and (tensor.grad[:, 1] == 0).all()
        assert tensor.grad[:, kept].abs().sum() > 0


def test_a_batch_of_skipped_images_gives_zeros() -> None:
    criterion = skipping_criterion(softmax=False)
    preds, targets = random_set(rows=1, counts=[2], queries=4, softmax=False)
    preds.iou = torch.full((1, 1, 4), float("nan"))
    losses = criterion({"main": preds}, targets)
    sum(losses.values()).backward()
    assert all(value.item() == 0 for value in losses.values()) and len(losses) == 4
    assert (preds.logits.grad == 0).all() and (preds.boxes.grad == 0).all()


def test_two_losses_of_one_reported_name() -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    criterion = SetCriterion(matcher=softmax_criterion().matcher, losses=[L1Loss(name="a"), L1Loss(name="a_dn")])
    with pytest.raises(ConfigError, match="Two losses are reported as 'loss_a_dn'"):
        criterion({"main": preds, "dn": preds}, targets)


def test_rows_of_one_loss_and_another_loss() -> None:
    """Row 0 of the loss `a` and the last row of the loss `a_0` have one name."""
    preds, targets = random_set(rows=2, counts=[2], queries=3)
    criterion = SetCriterion(matcher=softmax_criterion().matcher, losses=[L1Loss(name="a"), GIoULoss(name="a_0")])
    with pytest.raises(ConfigError, match="Two losses are reported as 'loss_a_0'"):
        criterion({"main": preds}, targets)


def test_a_loss_that_no_set_has() -> None:
    """It is noticed even beside one whose name begins with its name."""
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    losses = [IoUBranchLoss(name="iou"), L1Loss(name="iou_x")]
    with pytest.raises(ConfigError, match="No prediction set has what the loss 'iou' needs: remove it"):
        SetCriterion(matcher=softmax_criterion().matcher, losses=losses)({"main": preds}, targets)
    preds.iou = torch.zeros(1, 1, 3)
    found = SetCriterion(matcher=softmax_criterion().matcher, losses=losses)({"main": preds}, targets)
    assert set(found) == {"loss_iou", "loss_iou_x"}
