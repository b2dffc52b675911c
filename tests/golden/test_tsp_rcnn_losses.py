"""TSP-RCNN's matching and losses on given predictions, against the reference code."""

import dataclasses

import pytest
import torch
from torch import Tensor

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, SoftmaxCrossEntropy
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.projects.tsp.rcnn.losses import DeltaL1Loss, ProposalCriterion, ProposalOwnerMatcher
from align_detr.projects.tsp.rcnn.rois import BoxCoder, RoIOutputs, RoIPredictions
from support.golden import Fixture, fixtures
from support.inputs import padded_costs
from support.tsp_rcnn import box_criterion, close, criterion, sampled


class Variant:
    """The inputs of `rcnn_set_loss` as leaves, and the prediction set that they make."""

    def __init__(self, fixture: Fixture, *, agnostic: bool = False) -> None:
        self.rois, self.targets = sampled(fixture)
        self.logits = fixture.input["cls_logits"].clone().requires_grad_()
        self.deltas = fixture.input["deltas_agnostic" if agnostic else "deltas"].clone().requires_grad_()
        self.coder = BoxCoder(weights=tuple(fixture.meta["official_options"]["BBOX_REG_WEIGHTS"]))
        self.preds = RoIPredictions.of(self._outputs(), self.rois, self.targets, softmax=True)

    def _outputs(self) -> RoIOutputs:
        places = self.rois.valid.nonzero(as_tuple=True)

        def padded(x: Tensor) -> Tensor:
            return x.new_zeros(*self.rois.valid.shape, *x.shape[1:]).index_put(places, x)

        logits, deltas = padded(self.logits), padded(self.deltas.unflatten(1, (-1, 4)))
        return RoIOutputs(hidden=logits, logits=logits, deltas=deltas, coder=self.coder)

    def check(self, name: str, fixture: Fixture, losses: dict[str, Tensor]) -> None:
        recorded = {key.removeprefix(f"{name}/"): v for key, v in fixture.loss.items() if key.startswith(f"{name}/")}
        classes = recorded["loss_cls"] if "loss_cls" in recorded else recorded["loss_obj"]
        boxes = sum(value for key, value in losses.items() if "box" in key)
        close(losses["loss_obj"].detach(), classes)
        close(boxes.detach(), recorded["loss_box_reg"])
        sum(losses.values()).backward()
        close(self.logits.grad, fixture.grad[f"{name}/cls_logits"])
        close(self.deltas.grad, fixture.grad[f"{name}/deltas"])


@pytest.mark.parametrize("name", ["official", "giou_weight_1", "regress_matched_only", "class_agnostic"])
@fixtures("tsp/rcnn_set_loss*")
def test_set_loss(fixture: Fixture, name: str) -> None:
    giou = 1.0 if name == "giou_weight_1" else 2.0
    classes = criterion(giou=giou)
    boxes = box_criterion(giou=giou)
    if name == "regress_matched_only":
        boxes = box_criterion(matcher=classes.matcher, factor=3.0)
    variant = Variant(fixture, agnostic=name == "class_agnostic")
    sets = {"main": variant.preds}
    variant.check(name, fixture, {**classes(sets, variant.targets), **boxes(sets, variant.targets)})


@fixtures("tsp/rcnn_set_loss*")
def test_labels_of_all_foreground_instead_of_a_set(fixture: Fixture) -> None:
    variant = Variant(fixture)
    losses = [SoftmaxCrossEntropy(name="obj"), DeltaL1Loss(), GIoULoss(name="box_giou", weight=2.0)]
    dense = ProposalCriterion(matcher=ProposalOwnerMatcher(), losses=losses)
    variant.check("dense_label_no_set", fixture, dense({"main": variant.preds}, variant.targets))


@fixtures("tsp/rcnn_set_loss*")
def test_plain_hungarian_loss(fixture: Fixture) -> None:
    """DETR's criterion gives the official ablation.

    The official weights in the matching are 1, 2, 5, and its normaliser counts two more objects per image.
    """
    variant = Variant(fixture, agnostic=True)
    counts = variant.targets.counts
    plain = SetCriterion(
        matcher=HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=2.0), GIoUCost(weight=5.0)]),
        losses=[SoftmaxCrossEntropy(name="obj", weight=0.5), GIoULoss(name="box_giou", weight=2.0)],
    )
    scale = (sum(counts) + 2 * len(counts)) / sum(counts)
    preds = dataclasses.replace(variant.preds, allowed=None, scale=scale)
    variant.check("hungarian", fixture, plain({"main": preds}, variant.targets))


@pytest.mark.parametrize("name", ["official", "class_agnostic"])
@fixtures("tsp/rcnn_set_loss*")
def test_restricted_matching(fixture: Fixture, name: str) -> None:
    variant, matcher = Variant(fixture, agnostic=name == "class_agnostic"), criterion().matcher
    match = matcher({"main": variant.preds}, variant.targets)["main"]
    cost = padded_costs(matcher, variant.preds, variant.targets)[0]
    for image, (n, count) in enumerate(zip(variant.rois.counts, variant.targets.counts, strict=True)):
        recorded = {key: fixture.output[f"{name}/matcher_{key}_{image}"] for key in ("gt_index", "pred_index")}
        own = match.image == image
        pairs = set(zip(match.target[own].tolist(), match.query[own].tolist(), strict=True))
        assert pairs == set(zip(recorded["gt_index"].tolist(), recorded["pred_index"].tolist(), strict=True))
        if count:
            allowed = fixture.output[f"{name}/matcher_allowed_{image}"]
            assert torch.equal(variant.preds.allowed[image, :n, :count].T, allowed)
            # the recorded cost has 1 - GIoU where the library has - GIoU
            close(cost[image, :n, :count].T[allowed] + 2, fixture.output[f"{name}/matcher_cost_{image}"][allowed])
