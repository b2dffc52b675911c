"""DAB-DETR against the recorded network, with one and several patterns; whole training steps, plain and aligned."""

import pytest
from torch.testing import assert_close

from align_detr.checkpoint.detrex import convert_detrex_dab_detr
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.queries import AnchorQueries, PatternAnchorQueries
from align_detr.modeling.weighting import PrimeSampleWeighting
from support.golden import Fixture, fixtures, load
from support.paths import GOLDEN
from support.single_scale import (
    Network,
    assert_gradients,
    assert_predictions,
    assert_recognised,
    assert_states,
    dab_network,
)


def build(fixture: Fixture, mask_padding: bool) -> Network:
    config = fixture.meta["config"]
    sizes = dict(num_queries=config["num_queries"], embed_dim=config["embed_dim"])
    patterns = config.get("num_patterns", 0)
    queries = PatternAnchorQueries(**sizes, num_patterns=patterns) if patterns else AnchorQueries(**sizes)
    return dab_network(fixture, queries, convert_detrex_dab_detr, mask_padding=mask_padding)


@pytest.mark.parametrize(("mask_padding", "prefix"), [(True, "crossmask_"), (False, "")])
@fixtures("dab_detr*", having=["weights/"])
def test_forward(fixture: Fixture, mask_padding: bool, prefix: str) -> None:
    network = build(fixture, mask_padding)
    assert_predictions(network(fixture)["main"], fixture, prefix)


@fixtures("dab_detr*", having=["weights/"])
def test_states_and_references(fixture: Fixture) -> None:
    assert_states(build(fixture, mask_padding=False), fixture)


@fixtures("dab_detr*", having=["weights/"])
def test_recognised_by_its_keys(fixture: Fixture) -> None:
    assert_recognised(build(fixture, mask_padding=True), fixture)


@fixtures("dab_detr*", having=["weights/", "grad/"])
def test_gradients(fixture: Fixture) -> None:
    network = build(fixture, mask_padding=False)
    features = fixture.input["feat_res5"].clone().requires_grad_()
    preds = network(fixture, features)["main"]
    (
        (preds.logits * fixture.input["cotangent_pred_logits"]).sum()
        + (preds.boxes * fixture.input["cotangent_pred_boxes"]).sum()
    ).backward()
    assert_gradients(network, features, fixture.weights, fixture, convert_detrex_dab_detr)


def criterion(fixture: Fixture) -> SetCriterion:
    """Build DAB-DETR's criterion, or Align-DAB-DETR's if the fixture counts copies."""
    config, weights = fixture.meta["config"], fixture.meta["weight_dict"]
    copies = config.get("match_number")
    class_loss, weighting = SigmoidFocalLoss(weight=weights["loss_class"]), None
    if copies is not None:
        class_loss = IABCELoss(weight=weights["loss_class"], alpha=config["alpha"], gamma=config["gamma"])
        weighting = PrimeSampleWeighting(alpha=config["alpha"], tau=config["tau"])
    return SetCriterion(
        matcher=HungarianMatcher(
            costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)],
            copies=None if copies is None else {"main": copies[1:]},  # the first is for an encoder's proposals
        ),
        losses=[class_loss, L1Loss(weight=weights["loss_bbox"]), GIoULoss(weight=weights["loss_giou"], eps=1e-6)],
        weighting=weighting,
    )


@fixtures("dab_detr*", "align_dab*", lacking=["weights/"])
def test_training_step(fixture: Fixture) -> None:
    recorded = load(GOLDEN / fixture.meta["weights_from"])
    network, step = build(recorded, mask_padding=False), criterion(fixture)
    features = recorded.input["feat_res5"].clone().requires_grad_()
    targets = fixture.targets()
    preds = network(recorded, features, targets)
    assert_predictions(preds["main"], fixture)
    losses = step(preds, targets)
    weights = fixture.meta["weight_dict"]
    expected = {
        name: value * weights["_".join(name.split("_")[:2])] for name, value in fixture.loss.items() if name != "total"
    }
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=2e-5), name
    total = sum(losses.values())
    assert_close(total, fixture.loss["total"], rtol=2e-5, atol=0)
    total.backward()
    assert_gradients(network, features, recorded.weights, fixture, convert_detrex_dab_detr)
