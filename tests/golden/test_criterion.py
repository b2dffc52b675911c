"""Losses and their gradients against the recorded criterions: every one is built from the same parts."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.testing import assert_close

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import (
    GIoULoss,
    IABCELoss,
    L1Loss,
    SetLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropy,
    cardinality_error,
    class_error,
)
from align_detr.modeling.matcher import Cost, FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import Match, Predictions
from support.golden import Fixture, fixtures

# Our set names, and what the fixtures put before `pred_logits`.
PREFIX = {"main": "", "enc": "enc_", "dn": "dn_", "o2m": "one2many_"}


def build(
    fixture: Fixture,
    class_cost: Cost,
    class_loss: SetLoss,
    *,
    eps: float = 1e-6,
    square: bool = False,
    copies: dict | None = None,
    weighting: nn.Module | None = None,
    set_weights: dict | None = None,
) -> SetCriterion:
    """Class, L1 and GIoU with the weights that the fixture states; costs 5 for L1 and 2 for GIoU."""
    weights = {
        key.removeprefix("loss_").replace("ce", "class"): w**2 if square else w
        for key, w in fixture.meta["weight_dict"].items()
    }
    class_loss.weight = weights["class"]
    return SetCriterion(
        matcher=HungarianMatcher(costs=[class_cost, L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=eps)], copies=copies),
        losses=[class_loss, L1Loss(weight=weights["bbox"]), GIoULoss(weight=weights["giou"], eps=eps)],
        weighting=weighting,
        set_weights=set_weights,
    )


def focal(fixture: Fixture, **kwargs) -> SetCriterion:
    return build(fixture, FocalCost(weight=2.0), SigmoidFocalLoss(), **kwargs)


def align(fixture: Fixture, copies: Sequence[int]) -> SetCriterion:
    """Align-DETR: `copies` for the encoder, then for each layer."""
    meta = {"alpha": 0.25, "gamma": 2.0, "tau": 1.5, **fixture.meta}
    named = {"main": copies[1:], "enc": copies[0]} if "enc_pred_logits" in fixture.input else {"main": copies[1:]}
    return build(
        fixture,
        FocalCost(weight=2.0),
        IABCELoss(alpha=meta["alpha"], gamma=meta["gamma"]),
        copies=named,
        weighting=PrimeSampleWeighting(alpha=meta["alpha"], tau=meta["tau"]),
    )


def predictions(fixture: Fixture, name: str, **kwargs) -> Predictions:
    """The recorded predictions of a set, with gradients; encoder proposals get their one row."""
    tensors = [fixture.input[f"{PREFIX[name]}pred_{what}"].clone() for what in ("logits", "boxes")]
    logits, boxes = ((x[None] if x.dim() == 3 else x).requires_grad_() for x in tensors)
    return Predictions(logits=logits, boxes=boxes, **kwargs)


def denoising(fixture: Fixture) -> Predictions:
    """The denoising set with its fixed assignment, or one without queries where none was recorded."""
    if "dn_pred_logits" not in fixture.input:
        main = predictions(fixture, "main")
        return Predictions(logits=main.logits[:, :, :0], boxes=main.boxes[:, :, :0], match=Match.empty("cpu"))
    groups, padding = int(fixture.input["dn_num"]), int(fixture.input["dn_single_padding"])
    pairs = [
        (row, image, group * padding + target, target)
        for row in range(fixture.input["dn_pred_logits"].shape[0])
        for image, n in enumerate(fixture.input["tgt_sizes"].tolist())
        for group in range(groups)
        for target in range(n)
    ]
    match = Match(*torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4).unbind(1))
    return predictions(fixture, "dn", match=match, scale=groups)


def check(fixture: Fixture, criterion: SetCriterion, sets: dict[str, Predictions]) -> None:
    """Every recorded loss, their total and the gradients at 2e-5 relative to the largest entry."""
    targets = fixture.targets()
    labels = targets.labels.clone()
    losses = criterion(sets, targets)
    sum(losses.values()).backward()
    assert torch.equal(targets.labels, labels)
    expected = {_our_name(key): value * _weight(fixture, key) for key, value in fixture.loss.items() if "loss_" in key}
    assert set(losses) == set(expected)
    for key, value in losses.items():
        assert_close(value, expected[key].reshape(()), rtol=2e-5, atol=1e-6)
    assert_close(sum(losses.values()), fixture.loss["total"].reshape(()), rtol=2e-5, atol=1e-6)
    for name, preds in sets.items():
        for ours, what in ((preds.logits, "logits"), (preds.boxes, "boxes")):
            if ours.is_leaf:
                theirs = fixture.grad[f"{PREFIX[name]}pred_{what}"].reshape(ours.shape)
                assert_close(ours.grad, theirs, rtol=0, atol=2e-5 * max(theirs.abs().max().item(), 1e-6))


def _our_name(key: str) -> str:
    """loss_ce_0 -> loss_class_0, loss_class_0_one2many -> loss_class_o2m_0."""
    _, loss, *rest = key.split("_")
    if rest[-1:] == ["one2many"]:
        rest = ["o2m", *rest[:-1]]
    return "_".join(["loss", loss.replace("ce", "class"), *rest])


def _weight(fixture: Fixture, key: str) -> float:
    return fixture.meta["weight_dict"]["_".join(key.split("_")[:2])]


def check_matches(fixture: Fixture, match: Match) -> None:
    ours = set(zip(match.row.tolist(), match.image.tolist(), match.query.tolist(), match.target.tolist(), strict=True))
    layers = fixture.input["pred_logits"].shape[0]
    recorded = [fixture.indices(f"indices_layer{i}/") for i in range(layers)]
    assert ours == {(i, b, q, t) for i in range(layers) for b, image in enumerate(recorded[i]) for q, t in image}


@fixtures("criterion_detr_*")
def test_detr_criterion(fixture: Fixture) -> None:
    loss = SoftmaxCrossEntropy(background_weight=fixture.meta.get("eos_coef", 0.1))
    criterion = build(fixture, SoftmaxCost(weight=1.0), loss, eps=0.0)
    preds, targets = predictions(fixture, "main", softmax=True), fixture.targets()
    check(fixture, criterion, {"main": preds})
    match = criterion.matcher({"main": preds}, targets)["main"]
    check_matches(fixture, match)
    rows = cardinality_error(preds, targets)
    for i, value in enumerate(rows):
        suffix = "" if i == len(rows) - 1 else f"_{i}"
        assert_close(value, fixture.loss[f"cardinality_error{suffix}"], rtol=1e-6, atol=0)
    assert_close(class_error(preds, targets, match), fixture.loss["class_error"], rtol=1e-6, atol=1e-5)


@fixtures("criterion_detrex_ce_*")
def test_detrex_cross_entropy_criterion(fixture: Fixture) -> None:
    criterion = build(fixture, SoftmaxCost(weight=1.0), SoftmaxCrossEntropy())
    check(fixture, criterion, {"main": predictions(fixture, "main", softmax=True)})


@fixtures("criterion_detrex_focal_*")
def test_focal_criterion(fixture: Fixture) -> None:
    criterion, preds = focal(fixture), predictions(fixture, "main")
    check(fixture, criterion, {"main": preds})
    check_matches(fixture, criterion.matcher({"main": preds}, fixture.targets())["main"])


@fixtures("criterion_detrex_base_*")
def test_base_criterion(fixture: Fixture) -> None:
    """Its losses are weighted once when recorded and once more in the total."""
    check(fixture, focal(fixture, square=True), {"main": predictions(fixture, "main")})


@fixtures("criterion_deformable_twostage_*")
def test_two_stage_criterion_with_one_class_of_proposals(fixture: Fixture) -> None:
    sets = {"main": predictions(fixture, "main"), "enc": predictions(fixture, "enc", class_agnostic=True)}
    check(fixture, focal(fixture), sets)


@fixtures("criterion_twostage_*")
def test_two_stage_criterion(fixture: Fixture) -> None:
    check(fixture, focal(fixture), {name: predictions(fixture, name) for name in ("main", "enc")})


@fixtures("criterion_dino_*")
def test_dino_criterion(fixture: Fixture) -> None:
    sets = {name: predictions(fixture, name) for name in ("main", "enc")}
    check(fixture, focal(fixture), {**sets, "dn": denoising(fixture)})


@fixtures("criterion_dn_*")
def test_dn_criterion(fixture: Fixture) -> None:
    check(fixture, focal(fixture), {"main": predictions(fixture, "main"), "dn": denoising(fixture)})


@fixtures("criterion_group_*")
def test_group_criterion(fixture: Fixture) -> None:
    """Groups are rows of the same layer: 3 layers x 3 groups in training, 3 layers in evaluation."""
    preds, groups = predictions(fixture, "main"), fixture.meta["group_nums"]
    if fixture.name.endswith("train"):
        fixture.grad = {key: _rows_of_groups(value, groups) for key, value in fixture.grad.items()}
        logits, boxes = (_rows_of_groups(x.detach(), groups).requires_grad_() for x in (preds.logits, preds.boxes))
        preds = Predictions(logits=logits, boxes=boxes, groups=groups)
    check(fixture, focal(fixture), {"main": preds})


def _rows_of_groups(values: torch.Tensor, groups: int) -> torch.Tensor:
    """(L, B, groups x Q, C) -> (L x groups, B, Q, C)."""
    return values.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()


@fixtures("criterion_h_*")
def test_hybrid_criterion(fixture: Fixture) -> None:
    copies = fixture.meta["k_one2many"]
    sets = {
        "main": predictions(fixture, "main"),
        "enc": predictions(fixture, "enc", class_agnostic=True),
        "o2m": predictions(fixture, "o2m", scale=copies, copies=copies),
    }
    weights = {"o2m": fixture.meta["lambda_one2many"]}
    check(fixture, focal(fixture, set_weights=weights), sets)


@fixtures("criterion_align_m2o_*")
def test_align_criterion(fixture: Fixture) -> None:
    criterion, preds = align(fixture, fixture.meta["match_number"]), predictions(fixture, "main")
    check(fixture, criterion, {"main": preds})
    check_matches(fixture, criterion.matcher({"main": preds}, fixture.targets())["main"])


@fixtures("criterion_align_twostage_*")
def test_align_two_stage_criterion(fixture: Fixture) -> None:
    agnostic = fixture.name.endswith("binary")
    sets = {"main": predictions(fixture, "main"), "enc": predictions(fixture, "enc", class_agnostic=agnostic)}
    check(fixture, align(fixture, fixture.meta["match_num"]), sets)


@fixtures("criterion_align_dino_*")
def test_align_dino_criterion(fixture: Fixture) -> None:
    sets = {name: predictions(fixture, name) for name in ("main", "enc")}
    check(fixture, align(fixture, fixture.meta["match_num"]), {**sets, "dn": denoising(fixture)})
