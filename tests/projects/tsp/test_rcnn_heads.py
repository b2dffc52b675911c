"""TSP-RCNN's region heads on given features and proposals."""

from collections.abc import Callable

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances
from omegaconf import DictConfig
from torch.testing import assert_close

from align_detr.errors import ConfigError, DatasetError
from align_detr.projects.tsp.rcnn.losses import DeltaL1Loss
from align_detr.projects.tsp.rcnn.rois import RoIPredictions, RoIs
from align_detr.structures import Match, Predictions, Targets
from support.inputs import padded_costs
from support.tsp_rcnn_tiny import build, features, heads_of, random_proposals, refining, tiny

IMAGE_LIST = ImageList(torch.zeros(0), [])  # the heads read features and proposals alone


@pytest.mark.parametrize("name", ["tsp_rcnn_r50_36ep", "align_tsp_rcnn_r50_36ep"])
def test_images_without_proposals(name: str) -> None:
    torch.manual_seed(0)
    heads, maps, empty = build(tiny(name)).roi_heads.train(), features(), random_proposals(0, 0)
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))] * 2
    _, losses = heads(IMAGE_LIST, maps, empty, truth)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in heads.parameters())
    found, _ = heads.eval()(IMAGE_LIST, maps, empty)
    assert [len(x) for x in found] == [0, 0]


def test_training_needs_annotations_and_owners() -> None:
    heads, maps, proposals = build(tiny()).roi_heads.train(), features(), random_proposals(5, 3)
    with pytest.raises(DatasetError, match=r"have no annotations: train with a mapper that reads them\.$"):
        heads(IMAGE_LIST, maps, proposals)
    targets = Targets(labels=torch.zeros(2, 1, dtype=torch.int64), boxes=torch.full((2, 1, 4), 0.5), counts=[1, 1])
    with pytest.raises(ValueError, match=r"have no owners: take them from a ProposalSampler\.$"):
        heads.losses(maps, RoIs.from_instances(proposals), targets)


def test_a_loss_of_proposals_in_another_detector_is_a_config_error() -> None:
    preds = Predictions(logits=torch.zeros(1, 1, 2, 3), boxes=torch.full((1, 1, 2, 4), 0.5))
    targets = Targets(labels=torch.zeros(1, 1, dtype=torch.int64), boxes=torch.full((1, 1, 4), 0.5), counts=[1])
    with pytest.raises(
        ConfigError, match=r"DeltaL1Loss reads RoIPredictions, but the model predicts Predictions: remove it"
    ):
        DeltaL1Loss()(preds, targets, Match.empty("cpu"), torch.tensor(1.0))


def test_nothing_foreground_is_matched() -> None:
    """There are objects, but no sampled proposal belongs to one."""
    torch.manual_seed(0)
    heads, maps = build(tiny()).roi_heads.train(), features()
    rois = RoIs.from_instances(random_proposals(5, 3))
    rois.owner = torch.full((2, 5), -1)
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.rand(2, 4) + 5), gt_classes=torch.tensor([0, 2]))] * 2
    for x in truth:
        x.gt_boxes.tensor[:, 2:] += 20
    losses = heads.losses(maps, rois, Targets.from_instances(truth, num_classes=3, device="cpu"))
    sum(losses.values()).backward()
    assert losses["loss_obj"] > 0 and losses["loss_box_l1"] == 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in heads.parameters())


@pytest.mark.parametrize("node", [tiny, refining])
def test_one_image_against_a_batch(node: Callable[[], DictConfig]) -> None:
    """Neither another image nor the padding of tokens changes the detections."""
    torch.manual_seed(0)
    heads, maps, proposals = heads_of(node()), features(), random_proposals(4, 11)
    with torch.no_grad():
        together, _ = heads(IMAGE_LIST, maps, proposals)
        for i, expected in enumerate(together):
            own = {name: x[i : i + 1] for name, x in maps.items()}
            (alone,), _ = heads(IMAGE_LIST, own, proposals[i : i + 1])
            assert len(alone) == len(expected) > 0
            assert_close(alone.scores, expected.scores, rtol=1e-5, atol=1e-6)
            assert_close(alone.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-5, atol=1e-3)
            assert torch.equal(alone.pred_classes, expected.pred_classes)


def test_permuted_proposals_give_permuted_predictions() -> None:
    torch.manual_seed(0)
    heads, maps, (proposals,) = heads_of(tiny()), features(1), random_proposals(9)
    order = torch.randperm(9)
    with torch.no_grad():
        (plain, permuted) = (
            heads.stages[0](heads.pool(maps, rois), rois)
            for rois in (RoIs.from_instances([proposals]), RoIs.from_instances([proposals[order]]))
        )
    assert_close(plain.logits[:, order], permuted.logits, rtol=1e-5, atol=1e-5)
    assert_close(plain.deltas[:, order], permuted.deltas, rtol=1e-5, atol=1e-5)


def test_refinement_shares_the_gradient_of_the_maps() -> None:
    torch.manual_seed(0)
    heads, maps, rois = heads_of(refining()), features(1), RoIs.from_instances(random_proposals(3))
    plain = {name: x.clone().requires_grad_() for name, x in maps.items()}
    shared = {name: x.clone().requires_grad_() for name, x in maps.items()}
    expected = heads.pooler(list(plain.values()), rois.of_images())
    pooled = heads.pool(shared, rois)
    assert torch.equal(pooled, expected)
    expected.square().sum().backward()
    pooled.square().sum().backward()
    for name in maps:
        assert_close(shared[name].grad, plain[name].grad / 2)


def test_refinement_does_not_train_the_boxes_it_starts_from() -> None:
    """The losses of a stage reach the stage before through its tokens, but not through its boxes."""
    torch.manual_seed(0)
    heads = build(refining()).roi_heads.train()
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.tensor([[5.0, 5, 60, 60]])), gt_classes=torch.tensor([1]))]
    rois = RoIs.from_instances([Instances((96, 128), proposal_boxes=truth[0].gt_boxes)])
    rois.owner = torch.zeros(1, 1, dtype=torch.int64)
    losses = heads.losses(features(1), rois, Targets.from_instances(truth, num_classes=3, device="cpu"))
    assert losses["loss_box_l1"] > 0
    sum(value for name, value in losses.items() if not name.endswith("_0")).backward()
    assert all(p.grad is None for p in heads.stages[0].boxes.parameters())
    assert heads.stages[0].transformer.projection.weight.grad.any()


@pytest.mark.parametrize("threshold, is_foreground", [(0.7, False), (0.5, True)])
def test_each_stage_has_its_own_threshold(threshold: float, is_foreground: bool) -> None:
    """A proposal of IoU 0.6, which the first stage hardly moves, is foreground at 0.5 and not at 0.7."""
    node = refining()
    node.roi_heads.stages[1].iou_threshold = threshold
    heads = build(node).roi_heads.train()
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.tensor([[5.0, 5, 55, 65]])), gt_classes=torch.tensor([1]))]
    rois = RoIs.from_instances([Instances((96, 128), proposal_boxes=Boxes(torch.tensor([[5.0, 5, 55, 41]])))])
    rois.owner = torch.zeros(1, 1, dtype=torch.int64)
    losses = heads.losses(features(1), rois, Targets.from_instances(truth, num_classes=3, device="cpu"))
    assert losses["loss_box_l1_0"] > 0 and (losses["loss_box_l1"] > 0) == is_foreground


def test_predictions_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    for name in ("tsp_rcnn_r50_36ep", "align_tsp_rcnn_r50_36ep"):
        heads, rois = heads_of(tiny(name)), RoIs.from_instances(random_proposals(5))
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            outputs = heads.stages[0](heads.pool(features(1), rois), rois)
        assert outputs.logits.dtype == outputs.deltas.dtype == torch.float32


def test_refined_boxes_outside_of_the_image() -> None:
    """A refined box outside the image is empty and background."""
    torch.manual_seed(0)
    heads = build(refining()).roi_heads.train()
    with torch.no_grad():
        heads.stages[0].boxes.mlp.layers[-1].bias.copy_(torch.tensor([1000.0, 0, 0, 0]))  # 100 widths to the right
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.tensor([[5.0, 5, 60, 60]])), gt_classes=torch.tensor([1]))] * 2
    rois = RoIs.from_instances(random_proposals(6, 4))
    rois.owner = torch.tensor([[0, -1, -1, -1, -1, -1], [-1] * 6])
    losses = heads.losses(features(), rois, Targets.from_instances(truth, num_classes=3, device="cpu"))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss_box_l1_0"] > 0 and losses["loss_box_l1"] == 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in heads.parameters())


def test_each_object_takes_its_cheapest_own_proposal() -> None:
    """With one owner per proposal each object gets its cheapest, and an object without a proposal gets none."""
    torch.manual_seed(0)
    truth = [Instances((96, 128), gt_boxes=Boxes(x.proposal_boxes.tensor)) for x in random_proposals(4, 2)]
    for x in truth:
        x.gt_classes = torch.randint(3, (len(x),))
    targets = Targets.from_instances(truth, num_classes=3, device="cpu")
    rois, heads = RoIs.from_instances(random_proposals(30, 12)), heads_of(tiny())
    rois.owner = torch.randint(-1, 3, (2, 30)).masked_fill(~rois.valid, -1)  # object 3 of the first image has none
    rois.owner[1] = rois.owner[1].clamp(max=1)
    outputs = heads.stages[0](heads.pool(features(), rois), rois)
    preds = RoIPredictions.of(outputs, rois, targets, softmax=True)
    match = heads.criterion.matcher({"main": preds}, targets)["main"]
    cost = padded_costs(heads.criterion.matcher, preds, targets)[0]
    expected = set()
    for image, count in enumerate(targets.counts):
        for target in range(count):
            own = (rois.owner[image] == target).nonzero()[:, 0].tolist()
            if own:
                expected.add((image, min(own, key=lambda q: cost[image, q, target].item()), target))
    assert len(expected) == 5
    assert set(zip(match.image.tolist(), match.query.tolist(), match.target.tolist(), strict=True)) == expected


def test_copies_stay_with_their_own_objects() -> None:
    """In the aligned version each object has up to three proposals, all of which it owns."""
    torch.manual_seed(0)
    heads = build(tiny("align_tsp_rcnn_r50_36ep")).roi_heads
    truth = [Instances((96, 128), gt_boxes=Boxes(torch.tensor([[5.0, 5, 60, 60], [70, 20, 120, 90]])))]
    truth[0].gt_classes = torch.tensor([2, 0])
    targets = Targets.from_instances(truth, num_classes=3, device="cpu")
    rois = RoIs.from_instances(random_proposals(20))
    rois.owner = torch.tensor([[0] * 5 + [1] * 2 + [-1] * 13])
    outputs = heads.stages[0](heads.pool(features(1), rois), rois)
    preds = RoIPredictions.of(outputs, rois, targets, softmax=False)
    match = heads.criterion.matcher({"main": preds}, targets)["main"]
    assert torch.equal(rois.owner[0, match.query], match.target)
    assert match.target.bincount().tolist() == [3, 2]
    weights = heads.criterion.weighting(preds, targets, match).weight
    for target in (0, 1):
        ranks = weights[match.target == target].sort(descending=True).values.log() * -1.5
        assert_close(ranks, torch.arange(len(ranks)).float(), rtol=1e-5, atol=1e-6)
