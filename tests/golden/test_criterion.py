"""Losses and their gradients against the recorded criterions."""

import torch
from golden_files import Fixture, fixtures
from torch.testing import assert_close

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, L1Loss, SoftmaxCrossEntropy, cardinality_error, class_error
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.structures import Match, Predictions, Targets


def softmax_criterion(fixture: Fixture, eps: float) -> SetCriterion:
    """Cross-entropy, L1 and GIoU with the weights that the fixture states."""
    weights = fixture.meta["weight_dict"]
    return SetCriterion(
        matcher=HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=eps)]),
        losses=[
            SoftmaxCrossEntropy(
                weight=weights.get("loss_ce", weights.get("loss_class")),
                background_weight=fixture.meta.get("eos_coef", 0.1),
            ),
            L1Loss(weight=weights["loss_bbox"]),
            GIoULoss(weight=weights["loss_giou"], eps=eps),
        ],
    )


def run(fixture: Fixture, criterion: SetCriterion) -> tuple[Predictions, Targets, dict[str, torch.Tensor]]:
    """The losses, with gradients of their sum in the predictions."""
    preds = Predictions(
        logits=fixture.input["pred_logits"].clone().requires_grad_(),
        boxes=fixture.input["pred_boxes"].clone().requires_grad_(),
        softmax=True,
    )
    targets = fixture.targets()
    losses = criterion({"main": preds}, targets)
    sum(losses.values()).backward()
    return preds, targets, losses


def check(fixture: Fixture, criterion: SetCriterion, preds: Predictions, losses: dict[str, torch.Tensor]) -> None:
    """Every recorded loss, their total and the gradients at 2e-5 relative to the largest entry."""
    weights = {f"loss_{loss.name}": loss.weight for loss in criterion.losses}
    expected = {
        key.replace("loss_ce", "loss_class"): value for key, value in fixture.loss.items() if key.startswith("loss_")
    }
    assert set(losses) == set(expected)
    for key, value in losses.items():
        weight = weights["_".join(key.split("_")[:2])]
        assert_close(value, expected[key] * weight, rtol=2e-5, atol=1e-6)
    assert_close(sum(losses.values()), fixture.loss["total"], rtol=2e-5, atol=1e-6)
    for ours, name in [(preds.logits.grad, "pred_logits"), (preds.boxes.grad, "pred_boxes")]:
        theirs = fixture.grad[name]
        assert_close(ours, theirs, rtol=0, atol=2e-5 * max(theirs.abs().max().item(), 1e-6))


@fixtures("criterion_detr_*")
def test_detr_criterion(fixture: Fixture) -> None:
    criterion = softmax_criterion(fixture, eps=0.0)
    preds, targets, losses = run(fixture, criterion)
    check(fixture, criterion, preds, losses)
    match = criterion.matcher({"main": preds}, targets)["main"]
    check_matches(fixture, match)
    rows = cardinality_error(preds, targets)
    for i, value in enumerate(rows):
        suffix = "" if i == len(rows) - 1 else f"_{i}"
        assert_close(value, fixture.loss[f"cardinality_error{suffix}"], rtol=1e-6, atol=0)
    assert_close(class_error(preds, targets, match), fixture.loss["class_error"], rtol=1e-6, atol=1e-5)


def check_matches(fixture: Fixture, match: Match) -> None:
    ours = set(zip(match.row.tolist(), match.image.tolist(), match.query.tolist(), match.target.tolist(), strict=True))
    layers = fixture.input["pred_logits"].shape[0]
    recorded = [fixture.indices(f"indices_layer{i}/") for i in range(layers)]
    assert ours == {(i, b, q, t) for i in range(layers) for b, image in enumerate(recorded[i]) for q, t in image}


@fixtures("criterion_detrex_ce_*")
def test_detrex_cross_entropy_criterion(fixture: Fixture) -> None:
    criterion = softmax_criterion(fixture, eps=1e-6)
    preds, _, losses = run(fixture, criterion)
    check(fixture, criterion, preds, losses)
