"""The losses of masks: their formulas, whom they reach, and their targets."""

import dataclasses
import math

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from torch.testing import assert_close

from align_detr.errors import DatasetError
from align_detr.projects.detr_segmentation import DiceLoss, MaskFocalLoss, SegmentationDETR
from align_detr.projects.detr_segmentation.masks import pairs_of_last_layer, target_masks
from align_detr.structures import MAIN, Match, Predictions, Targets
from support.inputs import image_input
from support.shrink import small_model


def test_focal_and_dice_by_hand() -> None:
    """Two pixels with probabilities 3/4 and 1/2, of which the first is in the mask."""
    logits, mask = torch.tensor([[[math.log(3.0), 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    focal = (0.25 * 0.25**2 * -math.log(0.75) + 0.75 * 0.5**2 * -math.log(0.5)) / 2
    assert_close(MaskFocalLoss().elementwise(logits, mask), torch.tensor([focal]))
    assert_close(DiceLoss().elementwise(logits, mask), torch.tensor([1 - (2 * 0.75 + 1) / (1.25 + 1 + 1)]))
    weight = torch.tensor([0.5])
    assert_close(DiceLoss().elementwise(logits, mask, weight), 0.5 * DiceLoss().elementwise(logits, mask))


@pytest.mark.parametrize("loss", [MaskFocalLoss(), MaskFocalLoss(gamma=0.0), DiceLoss()])
def test_extreme_logits_are_finite(loss: MaskFocalLoss | DiceLoss) -> None:
    logits = torch.tensor([[[1e4, -1e4, 1e4, -1e4]]], requires_grad=True)
    value = loss.elementwise(logits, torch.tensor([[[1.0, 0.0, 0.0, 1.0]]]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()
    assert loss.elementwise(torch.full((1, 2, 2), 1e4), torch.ones(1, 2, 2)).item() == pytest.approx(0, abs=1e-6)


def targets_of(masks: list[torch.Tensor]) -> Targets:
    """Targets whose masks these are, (N, H, W) bool per image."""
    instances = []
    for x in masks:
        instances.append(Instances(tuple(x.shape[1:]), gt_boxes=Boxes(torch.rand(len(x), 4).sort().values)))
        instances[-1].gt_classes = torch.zeros(len(x), dtype=torch.int64)
        instances[-1].gt_masks = BitMasks(x)
    return Targets.from_instances(instances, num_classes=1, device="cpu")


def test_targets_are_the_matched_masks_padded_with_background() -> None:
    masks = [torch.rand(3, 2, 4) < 0.5, torch.zeros(0, 5, 1, dtype=torch.bool), torch.rand(2, 5, 3) < 0.5]
    zero = torch.zeros(3, dtype=torch.int64)
    pairs = Match(zero, torch.tensor([2, 0, 0]), zero, torch.tensor([1, 2, 0]))
    found = target_masks(targets_of(masks), pairs, (5, 4))
    expected = torch.zeros(3, 5, 4, dtype=torch.bool)
    expected[0, :, :3], expected[1, :2], expected[2, :2] = masks[2][1], masks[0][2], masks[0][0]
    assert torch.equal(found, expected)


def test_pairs_are_those_of_the_last_layer_and_know_their_group() -> None:
    """Six rows are three layers of two groups."""
    row = torch.tensor([0, 3, 4, 5, 5])
    count = torch.arange(5)
    found = pairs_of_last_layer(Match(row, count, count + 10, count + 20, count + 0.5), rows=6, groups=2)
    assert found.row.tolist() == [0, 1, 1] and found.image.tolist() == [2, 3, 4]
    assert found.query.tolist() == [12, 13, 14] and found.target.tolist() == [22, 23, 24]
    assert found.weight is not None and found.weight.tolist() == [2.5, 3.5, 4.5]


@pytest.fixture(scope="module")
def model() -> SegmentationDETR:
    torch.manual_seed(0)
    return instantiate(small_model("DETRSegmentation/detr_r50_panoptic_25ep.py", dropout=0.0)).train()


def test_losses_of_a_step_against_a_loop_over_pairs(model: SegmentationDETR) -> None:
    """Each pair of the last layer with its own mask in its own image, divided by the number of objects of both."""
    torch.manual_seed(1)
    batch = [image_input(96, 70, 3), image_input(45, 61, 1)]
    images, targets = [model.normalize(x["image"]) for x in batch], model.targets(batch)
    losses = model.losses(images, targets)
    sets = model.predict_in_training(images, targets)
    match = model.criterion.matcher({MAIN: sets[MAIN].float()}, targets)[MAIN]
    focal = dice = 0.0
    pairs = list(zip(match.row, match.image, match.query, match.target, strict=True))
    for row, image, query, target in pairs:
        if row != 1:
            continue
        features, hidden = sets[MAIN].masks.features, sets[MAIN].hidden[image, query]
        logits = model.masks(features, hidden[None], sets[MAIN].boxes[row, image, query][None], image[None])
        logits = torch.nn.functional.interpolate(logits[None], size=(96, 70), mode="bilinear")[0, 0]
        mask = torch.zeros(96, 70)
        own = batch[image]["instances"].gt_masks.tensor[target]
        mask[: own.shape[0], : own.shape[1]] = own
        p = logits.sigmoid()
        p_true = torch.where(mask > 0, p, 1 - p)
        alpha = torch.where(mask > 0, 0.25, 0.75)
        focal = focal + (-alpha * (1 - p_true) ** 2 * p_true.log()).mean() / 4
        dice = dice + (1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)) / 4
    assert len(pairs) == 8
    assert_close(losses["loss_mask"], focal, rtol=1e-4, atol=1e-6)
    assert_close(losses["loss_dice"], dice, rtol=1e-4, atol=1e-6)
    assert {"loss_mask_0", "loss_dice_0"}.isdisjoint(losses)


def test_the_branch_is_computed_once_for_both_losses(model: SegmentationDETR, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    head = model.masks.head
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda *inputs: (calls.append(len(inputs[1])), forward(*inputs))[1])
    model([image_input(64, 64, 2), image_input(64, 64, 3)])
    assert calls == [5]


def test_an_image_without_masks_is_named(model: SegmentationDETR) -> None:
    batch = [{**image_input(64, 64, 2), "file_name": "a.jpg"}]
    batch[0]["instances"].remove("gt_masks")
    with pytest.raises(DatasetError, match=r"^Image a\.jpg has no masks.* to a MaskMapper\.$"):
        model(batch)


def test_a_set_without_masks_has_no_such_loss(model: SegmentationDETR) -> None:
    preds = Predictions(logits=torch.zeros(2, 1, 3, 4), boxes=torch.rand(2, 1, 3, 4))
    for loss in (MaskFocalLoss(), DiceLoss()):
        assert loss(preds, targets_of([torch.ones(1, 2, 2, dtype=torch.bool)]), Match.empty("cpu"), None).shape == (0,)
    assert dataclasses.is_dataclass(preds)
