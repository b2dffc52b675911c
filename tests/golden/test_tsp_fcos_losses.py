"""TSP-FCOS's matching and losses on recorded predictions, with their gradients, in all of the official variants."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from align_detr.layers.boxes import xyxy_to_cxcywh
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, SoftmaxCrossEntropy
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.projects.tsp.fcos.assign import Assignment, PointAssigner
from align_detr.projects.tsp.fcos.head import PointPredictions
from align_detr.projects.tsp.fcos.losses import DownweightedFocalLoss, PointCriterion, RestrictedFocalLoss
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import Match, Predictions, Targets
from support.golden import Fixture, fixtures, pad_targets
from support.inputs import padded_costs
from support.tsp_fcos import bare_points, check_losses, close, criterion, matcher, recorded_set, targets_of

# the class loss of each official variant with the set loss
VARIANTS = {
    "official": RestrictedFocalLoss(),
    "denorm_all": RestrictedFocalLoss(matched_norm=0.0, foreground_norm=1.0),
    "denorm_mixed": RestrictedFocalLoss(matched_norm=1.0, foreground_norm=0.1),
    "denorm_set": RestrictedFocalLoss(matched_norm=1.0, foreground_norm=0.0),
    "reweight_all_classes": DownweightedFocalLoss(),
}
Case = tuple[Targets, Points, Assignment, PointPredictions]


def case(fixture: Fixture) -> Case:
    points = bare_points(fixture, fixture.input["local_logits"].clone().requires_grad_())
    targets = targets_of(fixture)
    assignment = PointAssigner()(points, targets)
    return targets, points, assignment, recorded_set(fixture, points, assignment)


def with_class_loss(loss: RestrictedFocalLoss) -> PointCriterion:
    result = criterion()
    result.matched.losses[0] = loss
    return result


def gradient(loss: torch.Tensor, preds: PointPredictions, points: Points) -> dict[str, torch.Tensor]:
    inputs = {"logits": preds.logits, "reg": preds.distances, "ctrness": preds.centerness}
    grads = torch.autograd.grad(loss, [*inputs.values(), points.logits], allow_unused=True)
    return {**{k: g if g is None else g[0] for k, g in zip(inputs, grads, strict=False)}, "local_logits": grads[-1]}


@fixtures("tsp/fcos_set_loss*")
def test_matching(fixture: Fixture) -> None:
    targets, _, assignment, preds = case(fixture)
    owner = assignment.labels.gather(1, fixture.input["poi_idx"])
    labels = fixture.output["foi_labels"]
    assert torch.equal(owner, torch.where(labels == preds.logits.shape[-1], -1, labels))

    # recorded: objects of all images against points of all images
    expected, allowed = fixture.output["matcher/cost"], fixture.output["matcher/allowed"]
    queries = preds.logits.shape[2]
    cost = padded_costs(matcher(), preds, targets)[0].detach()
    found = torch.zeros_like(allowed)
    starts = [sum(targets.counts[:i]) for i in range(len(targets.counts))]
    for image, (start, n) in enumerate(zip(starts, targets.counts, strict=True)):
        own = (slice(start, start + n), slice(image * queries, (image + 1) * queries))
        found[own] = preds.allowed[image, :, :n].T
        close(cost[image, :, :n].T[allowed[own]], expected[own][allowed[own]])
    assert torch.equal(found, allowed)

    match = matcher()({"main": preds}, targets)["main"]
    pairs = torch.stack([torch.tensor(starts)[match.image] + match.target, match.image * queries + match.query])
    recorded = torch.stack([fixture.output["matcher/gt_index"], fixture.output["matcher/pred_index"]])
    assert pairs[:, pairs[0].argsort()].tolist() == recorded[:, recorded[0].argsort()].tolist()
    assert len(match) < sum(targets.counts), "one object owns no selected point"


@fixtures("tsp/fcos_set_loss*")
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses(fixture: Fixture, variant: str) -> None:
    targets, points, assignment, preds = case(fixture)
    losses = with_class_loss(VARIANTS[variant])(preds, points, assignment, targets)
    check_losses(losses, fixture.loss, f"{variant}/")
    found = gradient(sum(losses.values()), preds, points)
    for name, grad in found.items():
        if f"{variant}/{name}" in fixture.grad:
            close(grad, fixture.grad[f"{variant}/{name}"], name)


@fixtures("tsp/fcos_set_loss*")
def test_dense_labels(fixture: Fixture) -> None:
    """Without a set loss, every point of an object is a positive of its class."""
    targets, points, assignment, preds = case(fixture)
    image, query = (preds.owner >= 0).nonzero(as_tuple=True)
    match = Match(torch.zeros_like(image), image, query, preds.owner[image, query])
    known = replace(preds, match=match)
    # `assigned` keeps a known match, so the criterion as it is takes it
    losses = with_class_loss(RestrictedFocalLoss(matched_norm=0.0, foreground_norm=1.0))(
        known, points, assignment, targets
    )
    check_losses(losses, fixture.loss, "dense_label_no_set/")
    close(gradient(sum(losses.values()), preds, points)["logits"], fixture.grad["dense_label_no_set/logits"])


@fixtures("tsp/fcos_set_loss*")
def test_plain_hungarian(fixture: Fixture) -> None:
    """The library's parts give the official ablation with DETR's losses.

    Its softmax has a background logit of 0, nothing restricts the matching, and the loss on boxes has weight 10 and is
    divided by the points of objects.
    """
    targets, points, _, preds = case(fixture)
    plain = Predictions(logits=F.pad(preds.logits, (0, 1)), boxes=preds.boxes, softmax=True)
    losses = SetCriterion(
        matcher=HungarianMatcher(costs=[SoftmaxCost(weight=1.0), GIoUCost(weight=5.0)]),
        losses=[SoftmaxCrossEntropy(weight=1.0, background_weight=0.1), GIoULoss(weight=10.0)],
    )({"main": plain}, targets)
    boxes = losses["loss_giou"] * sum(targets.counts) / (preds.owner >= 0).sum()
    close(losses["loss_class"], fixture.loss["hungarian/loss_fcos_cls"])
    close(boxes, fixture.loss["hungarian/loss_fcos_loc"])
    grads = gradient(losses["loss_class"] + boxes, preds, points)
    close(grads["logits"], fixture.grad["hungarian/logits"])
    close(grads["reg"], fixture.grad["hungarian/reg"])


@fixtures("tsp/hungarian_plain*")
@pytest.mark.parametrize("tag", ["class_l1_giou", "class_giou_abs"])
def test_unrestricted_matcher(fixture: Fixture, tag: str) -> None:
    """The library's matcher gives the official ablation's, with DETR's weights of L1 and GIoU swapped.

    GIoU does not depend on the unit, so absolute boxes have the same matches.
    """
    weights = fixture.meta["config"]["weights"]
    costs = [SoftmaxCost(weight=weights["cost_class"]), GIoUCost(weight=weights["cost_giou"])]
    if tag == "class_l1_giou":
        costs.append(L1Cost(weight=weights["cost_bbox"]))
        boxes, objects = fixture.input["pred_cxcywh_norm"], fixture.input["gt_boxes_cxcywh_norm"]
    else:
        boxes = xyxy_to_cxcywh(fixture.input["pred_xyxy_abs"])
        objects = xyxy_to_cxcywh(fixture.input["gt_boxes_xyxy_abs"])
    counts = fixture.input["gt_counts"].tolist()
    targets = pad_targets(fixture.input["gt_classes"], objects, counts)
    preds = Predictions(logits=fixture.input["logits"][None], boxes=boxes[None], softmax=True)
    solver = HungarianMatcher(costs=costs)
    cost, match = padded_costs(solver, preds, targets)[0], solver({"main": preds}, targets)["main"]
    for i, n in enumerate(counts):
        close(cost[i, :, :n], fixture.output[f"{tag}/cost_{i}"])
        assert match.query[match.image == i].tolist() == fixture.output[f"{tag}/pred_index_{i}"].tolist()
        assert match.target[match.image == i].tolist() == fixture.output[f"{tag}/gt_index_{i}"].tolist()
