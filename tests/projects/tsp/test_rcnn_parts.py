"""The parts of TSP-RCNN against formulas written out here and against detectron2's own."""

import math

import pytest
import torch
import torchvision
from detectron2.layers import ROIAlign, batched_nms, roi_align
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.projects.tsp.rcnn.losses import BackgroundFocalLoss
from align_detr.projects.tsp.rcnn.padded import propose
from align_detr.projects.tsp.rcnn.roi_heads import ClassWiseNMS
from align_detr.projects.tsp.rcnn.rois import BoxCoder, RoIs, pad_images
from align_detr.projects.tsp.rcnn.rpn import TowerRPNHead
from align_detr.projects.tsp.rcnn.sampling import ProposalSampler, assign_objects, jitter
from align_detr.projects.tsp.rcnn.transformer import BoxPositionEncoding
from align_detr.structures import Match, Predictions, Targets


def random_boxes(count: int, side: float = 200.0) -> torch.Tensor:
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 4 + torch.rand(count, 2) * side], dim=1)


def test_deltas_are_detectron2s() -> None:
    torch.manual_seed(0)
    boxes, proposals, coder = random_boxes(50), random_boxes(50), BoxCoder(weights=(20.0, 20.0, 10.0, 10.0))
    reference = Box2BoxTransform(weights=(20.0, 20.0, 10.0, 10.0))
    deltas = coder.encode(boxes, proposals)
    assert_close(deltas, reference.get_deltas(proposals, boxes), rtol=1e-5, atol=1e-4)
    assert_close(coder.decode(deltas, proposals), boxes, rtol=1e-5, atol=1e-3)
    large = torch.randn(50, 4) * 50  # some beyond the bound on sizes
    assert_close(coder.decode(large, proposals), reference.apply_deltas(large, proposals), rtol=1e-5, atol=1e-2)


def test_deltas_do_not_depend_on_the_unit() -> None:
    torch.manual_seed(1)
    boxes, proposals, sides = random_boxes(20), random_boxes(20), torch.tensor([640.0, 480.0, 640.0, 480.0])
    coder = BoxCoder()
    assert_close(coder.encode(boxes / sides, proposals / sides), coder.encode(boxes, proposals), rtol=1e-4, atol=1e-4)


def test_position_encoding_of_one_box() -> None:
    box = torch.tensor([0.1, 0.2, 0.5, 0.8])  # centre 0.3, 0.5 and size 0.4, 0.6
    encoding = BoxPositionEncoding(embed_dim=32)(box)
    expected = []
    for number in (0.3, 0.5, 0.4, 0.6, 0.1, 0.2, 0.5, 0.8):
        for period in (1.0, 100.0):  # 10000 to the power of 0 and of 1/2
            angle = 2 * math.pi * number / period
            expected += [math.sin(angle), math.cos(angle)]
    assert_close(encoding, torch.tensor(expected), rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="multiple of 16"):
        BoxPositionEncoding(embed_dim=24)


def test_assignment_takes_the_best_object_at_the_threshold() -> None:
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]])
    proposals = torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 15.0], [0.0, 0.0, 10.0, 4.0]])
    # IoU 0.5 with the first object; 10/15 with the first, 15/20 with the second; 0.4
    assert assign_objects(proposals, objects, 0.5).tolist() == [0, 1, -1]
    assert assign_objects(proposals, objects[:0], 0.5).tolist() == [-1, -1, -1]


def test_jitter_moves_and_scales() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # centre 20, 40, size 20, 40
    assert_close(jitter(box, torch.full((1, 4), 0.5)), box)
    # shift by -10 % and factor 1 / 0.8 in x, shift by 5 % and no change of size in y
    moved = jitter(box, torch.tensor([[0.0, 0.75, 0.0, 0.5]]))
    assert_close(moved, torch.tensor([[18 - 12.5, 42 - 20.0, 18 + 12.5, 42 + 20.0]]))


def image(boxes: torch.Tensor, objects: torch.Tensor) -> tuple[Instances, Instances]:
    size = (500, 500)
    return Instances(size, proposal_boxes=Boxes(boxes)), Instances(size, gt_boxes=Boxes(objects))


def test_sampler_caps_the_foreground() -> None:
    torch.manual_seed(0)
    target = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    boxes = torch.cat([target.expand(30, 4), torch.tensor([[300.0, 300.0, 400.0, 400.0]]).expand(50, 4)])
    proposals, objects = image(boxes, target)
    sampler = ProposalSampler(batch_size_per_image=40, positive_fraction=0.25, keep_range=(1.0, 1.0))
    (found,) = sampler([proposals], [objects])
    assert (found.gt_idxs == 0).sum() == 10 and (found.gt_idxs == -1).sum() == 30
    assert len(proposals) == 80 and not proposals.has("gt_idxs"), "the input stays as it is"


def test_ground_truth_joins_only_where_nothing_is_foreground() -> None:
    torch.manual_seed(0)
    target = torch.tensor([[100.0, 100.0, 200.0, 200.0], [10.0, 10.0, 60.0, 60.0]])
    far = torch.tensor([[300.0, 300.0, 400.0, 400.0]]).expand(5, 4)
    sampler = ProposalSampler(keep_range=(1.0, 1.0))
    (found,) = sampler(*([x] for x in image(far, target)))
    assert sorted(found.gt_idxs.tolist()) == [-1] * 5 + [0, 1]
    (found,) = sampler(*([x] for x in image(torch.cat([far, target[:1]]), target)))
    assert sorted(found.gt_idxs.tolist()) == [-1] * 5 + [0]
    (found,) = sampler(*([x] for x in image(far, target[:0])))
    assert found.gt_idxs.tolist() == [-1] * 5
    (found,) = sampler(*([x] for x in image(far[:0], target[:0])))
    assert len(found) == 0


@pytest.mark.parametrize(("keep_range", "low", "high"), [((0.7, 1.0), 70, 100), ((0.3, 0.3), 30, 30)])
def test_random_drop(keep_range: tuple[float, float], low: int, high: int) -> None:
    torch.manual_seed(0)
    sampler = ProposalSampler(keep_range=keep_range)
    proposals, objects = image(random_boxes(100), random_boxes(1))
    counts = [len(sampler([proposals], [objects])[0]) for _ in range(50)]
    assert low <= min(counts) and max(counts) <= high
    assert len(set(counts)) > 10 or low == high, "every call draws anew"
    assert sampler.num_kept(100, 0.0) == high


def test_any_proposal_may_be_dropped() -> None:
    """Foreground comes first before the drop, which keeps it no more often than background."""
    torch.manual_seed(0)
    target = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    boxes = torch.cat([target.expand(20, 4), torch.tensor([[300.0, 300.0, 400.0, 400.0]]).expand(20, 4)])
    sampler = ProposalSampler(keep_range=(0.5, 0.5))
    kept = [sampler(*([x] for x in image(boxes, target)))[0].gt_idxs for _ in range(50)]
    assert all(len(x) == 20 for x in kept)
    foreground = torch.stack([(x == 0).sum() for x in kept]).float()
    assert_close(foreground.mean(), torch.tensor(10.0), atol=1.0, rtol=0)  # its own deviation is below 0.25


@pytest.mark.parametrize("keep_range", [(0.0, 1.0), (0.9, 0.7), (0.7, 1.1), (0.7,)])
def test_a_keep_range_that_is_none(keep_range: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="keep_range"):
        ProposalSampler(keep_range=keep_range)


def logits_of(*probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities).log()[None, None].requires_grad_()


def test_background_focal_loss_by_hand() -> None:
    preds = Predictions(logits=logits_of([0.2, 0.3, 0.5], [0.1, 0.1, 0.8]), boxes=torch.rand(1, 1, 2, 4), softmax=True)
    targets = Targets(labels=torch.tensor([[1]]), boxes=torch.rand(1, 1, 4), counts=[1])
    match = Match(*torch.tensor([[0], [0], [0], [0]]))
    value = BackgroundFocalLoss(background_weight=0.1)(preds, targets, match, torch.tensor(7.0))
    expected = (-math.log(0.3) + 0.1 * 2 * (1 - 0.8) ** 2 * -math.log(0.8)) / (1 + 0.1 + 1e-6)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_background_is_learnt_where_nothing_is_matched() -> None:
    preds = Predictions(logits=logits_of([0.2, 0.3, 0.5], [0.1, 0.1, 0.8]), boxes=torch.rand(1, 1, 2, 4), softmax=True)
    targets = Targets(labels=torch.zeros(1, 1, dtype=torch.int64), boxes=torch.rand(1, 1, 4), counts=[0])
    value = BackgroundFocalLoss(background_weight=0.1)(preds, targets, Match.empty("cpu"), torch.tensor(1.0))
    terms = [0.1 * 2 * (1 - p) ** 2 * -math.log(p) for p in (0.5, 0.8)]
    assert value.item() == pytest.approx(sum(terms) / (0.2 + 1e-6), rel=1e-5)
    value.sum().backward()
    assert (preds.logits.grad[..., 2] < 0).all(), "a step raises the background's logit"


def test_a_loss_over_padding_alone_is_zero() -> None:
    preds = Predictions(
        logits=logits_of([0.2, 0.3, 0.5]),
        boxes=torch.rand(1, 1, 1, 4),
        softmax=True,
        valid=torch.zeros(1, 1, dtype=torch.bool),
    )
    targets = Targets(labels=torch.zeros(1, 1, dtype=torch.int64), boxes=torch.rand(1, 1, 4), counts=[0])
    value = BackgroundFocalLoss()(preds, targets, Match.empty("cpu"), torch.tensor(1.0))
    value.sum().backward()
    assert value.item() == 0 and torch.equal(preds.logits.grad, torch.zeros_like(preds.logits))


def test_padding_of_rois() -> None:
    sizes = [(100, 200), (50, 80), (30, 30)]
    counts = [3, 1, 0]
    instances = [Instances(s, proposal_boxes=Boxes(random_boxes(n))) for s, n in zip(sizes, counts, strict=True)]
    rois = RoIs.from_instances(instances)
    assert rois.boxes.shape == (3, 3, 4) and rois.owner is None and rois.is_padded
    assert rois.valid.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert [len(x) for x in rois.of_images()] == counts
    assert rois.sides[:, 0].tolist() == [[200, 100] * 2, [80, 50] * 2, [30, 30] * 2]
    clipped = rois.refined(torch.tensor([-5.0, 20.0, 500.0, 60.0]).expand(3, 3, 4)).boxes[:, 0]
    assert clipped.tolist() == [[0, 20, 200, 60], [0, 20, 80, 50], [0, 20, 30, 30]]
    assert pad_images([torch.zeros(0, 4)]).shape == (1, 1, 4)


def test_rpn_head_keeps_the_statistics_of_levels_apart() -> None:
    torch.manual_seed(0)
    head = TowerRPNHead(in_channels=8, num_anchors=3, num_levels=2, norm="BN").train()
    maps = [torch.randn(2, 8, 4, 6), 5 + torch.randn(2, 8, 2, 3)]
    objectness, deltas = head(maps)
    assert [x.shape for x in objectness] == [(2, 3, 4, 6), (2, 3, 2, 3)]
    assert [x.shape for x in deltas] == [(2, 12, 4, 6), (2, 12, 2, 3)]
    means = [norms[0].running_mean for norms in head.objectness_tower.norms]
    assert not torch.allclose(means[0], means[1])
    shared = head.objectness_tower.convs[0]
    expected = 0.1 * shared(maps[1]).mean((0, 2, 3))
    assert_close(means[1], expected, rtol=1e-5, atol=1e-6)


def test_rpn_head_is_float32_under_autocast() -> None:
    head = TowerRPNHead(in_channels=8, num_anchors=3, num_levels=1, norm="BN").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (objectness,), (deltas,) = head([torch.randn(1, 8, 4, 6)])
    assert objectness.dtype == deltas.dtype == torch.float32


def test_class_wise_nms() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 70.0]])
    rois = RoIs(boxes=boxes[None], counts=[3], image_sizes=[(60, 60)])
    probabilities = torch.tensor([[0.5, 0.1, 0.4], [0.6, 0.0, 0.4], [0.0, 0.3, 0.7]])[None]  # background last
    (found,) = ClassWiseNMS(nms_threshold=0.7)(probabilities, boxes[None, :, None], rois)
    # the first box loses class 0 to the second (IoU 0.9), but not class 1; the third is cut at the image's border
    assert found.scores.tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert found.pred_classes.tolist() == [0, 1, 1]
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]]


def test_region_operators_are_torchvisions() -> None:
    """The repacked detectron2 has no compiled operators."""
    assert roi_align is torchvision.ops.roi_align
    torch.manual_seed(0)
    maps, boxes = torch.randn(1, 2, 20, 20), random_boxes(5, 40)
    rois = torch.cat([torch.zeros(5, 1), boxes], dim=1)
    expected = torchvision.ops.roi_align(maps, rois, (7, 7), 0.25, 0, aligned=True)
    assert_close(ROIAlign((7, 7), 0.25, 0, aligned=True)(maps, rois), expected)
    assert batched_nms(boxes, torch.arange(5.0), torch.zeros(5, dtype=torch.int64), 0.5)[0] == 4


class TwoAnchors(torch.nn.Module):
    """A head that prefers the first of two anchors and moves none."""

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return logits (B, 2, h, w) and deltas (B, 8, h, w) of each map."""
        logits = [torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(x), -1, *x.shape[2:]) for x in features]
        return logits, [x.new_zeros(len(x), 8, *x.shape[2:]) for x in features]


def test_proposals_that_are_too_small_remove_no_others() -> None:
    """Anchors of 14 and 16 pixels around (16, 16), IoU 196/256; in detectron2, too, the larger remains."""
    generator = RPN(
        in_features=["p4"],
        head=TwoAnchors(),
        anchor_generator=DefaultAnchorGenerator(sizes=[[14, 16]], aspect_ratios=[1.0], strides=[32], offset=0.5),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=4,
        positive_fraction=0.5,
        pre_nms_topk=(10, 10),
        post_nms_topk=(10, 10),
        nms_thresh=0.7,
        min_box_size=15,
    ).eval()
    features = {"p4": torch.zeros(1, 4, 1, 1)}
    rois = propose(generator, features, torch.tensor([[32, 32]]))
    (theirs,), _ = generator(ImageList(torch.zeros(1, 3, 32, 32), [(32, 32)]), features)
    assert rois.boxes[rois.valid].tolist() == theirs.proposal_boxes.tensor.tolist() == [[8, 8, 24, 24]]
