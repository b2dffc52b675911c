"""Losses without a criterion: on plain tensors, in half precision, and to what they pass no gradient."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.modeling import losses
from align_detr.modeling.losses.binary import BinaryLoss
from align_detr.structures import Match, Predictions, Targets

EXPORTED = [x for x in (getattr(losses, name) for name in losses.__all__) if isinstance(x, type)]
BASES = (BinaryLoss, losses.FocusedLoss, losses.QualityLoss)
BINARY = [x() for x in EXPORTED if issubclass(x, BinaryLoss) and x not in BASES]
BINARY.append(losses.SigmoidFocalLoss(alpha=0.3))  # times 1/4 no rounding shows
CLASSES = [*BINARY, losses.SoftmaxCrossEntropy()]
BRANCH = losses.IoUBranchLoss()
ALL = [*CLASSES, BRANCH, losses.L1Loss(), losses.GIoULoss(), losses.GIoULoss(eps=1e-6)]
ONE = torch.tensor(1.0)
HALVES = [torch.bfloat16, torch.float16]


def of_each(kinds: list[losses.SetLoss]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("loss", kinds, ids=[type(x).__name__ for x in kinds])


@pytest.fixture
def case() -> tuple[Predictions, Targets, Match]:
    """Return two rows, two images and four queries near their targets; the last of three logits may be "no object"."""
    torch.manual_seed(0)
    targets = Targets(torch.tensor([[1, 0], [1, 0]]), torch.rand(2, 2, 4) * 0.3 + 0.3, counts=[2, 1])
    boxes = targets.boxes[:, [0, 1, 0, 1]] + 0.1 * torch.rand(2, 2, 4, 4)
    preds = Predictions(logits=torch.randn(2, 2, 4, 3), boxes=boxes, iou=torch.randn(2, 2, 4))
    pairs = torch.tensor([[0, 0, 2, 0], [0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 3, 1], [1, 1, 2, 0]])
    return preds, targets, Match(*pairs.unbind(1), weight=torch.tensor([1.0, 0.5, 0.25, 1.0, 0.7]))


def plain_inputs(loss: losses.SetLoss) -> list[Tensor]:
    """Return the arguments of `elementwise`: four rows, of which the last two are background if there are labels."""
    torch.manual_seed(0)
    logits, labels, iou, weight = torch.randn(4, 3), torch.tensor([1, 0, 3, 3]), torch.rand(4), torch.rand(4)
    if isinstance(loss, BinaryLoss):
        return [logits, labels, iou, weight]
    if isinstance(loss, losses.SoftmaxCrossEntropy):
        return [logits, labels.clamp(max=2)]
    if loss is BRANCH:
        return [logits[:, 0], iou, weight]
    boxes = torch.rand(4, 4) * 0.3 + 0.3
    return [boxes, boxes + 0.1 * torch.rand(4, 4), weight]


@of_each(ALL)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_sets_have_float32_losses(
    case, loss: losses.SetLoss, dtype: torch.dtype, autocast: bool
) -> None:
    """Logits, boxes and IoU in half precision cost what the same rounded numbers cost in float32."""
    preds, targets, match = case
    preds = dataclasses.replace(preds, **{x: getattr(preds, x).to(dtype) for x in ("logits", "boxes", "iou")})
    boxes, weight = targets.boxes.to(dtype), match.weight.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        half = dataclasses.replace(targets, boxes=boxes), dataclasses.replace(match, weight=weight)
        value = loss(preds, *half, ONE)
    exact = dataclasses.replace(targets, boxes=boxes.float()), dataclasses.replace(match, weight=weight.float())
    assert_close(value, loss(preds.float(), *exact, ONE), rtol=1e-6, atol=0)


@of_each(ALL)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_tensors_have_float32_losses(loss: losses.SetLoss, dtype: torch.dtype, autocast: bool) -> None:
    half = [x.to(dtype) if x.is_floating_point() else x for x in plain_inputs(loss)]
    exact = [x.float() if x.is_floating_point() else x for x in half]
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        value = loss.elementwise(*half)
    assert_close(value, loss.elementwise(*exact), rtol=1e-6, atol=0)


def test_quality_is_float32() -> None:
    s, u = torch.tensor([0.3, 0.8], dtype=torch.bfloat16), torch.tensor([0.6, 0.7], dtype=torch.bfloat16)
    assert_close(losses.alignment_quality(s, u), s.float() ** 0.25 * u.float() ** 0.75, rtol=1e-6, atol=0)
    squares = losses.rescaled_squares(u, torch.tensor([0, 0]), 1)
    assert_close(squares, u.float() ** 2 / u.float().max(), rtol=1e-6, atol=0)


def test_equal_boxes_of_half_precision_cost_nothing() -> None:
    boxes = (torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3).bfloat16()
    assert_close(losses.GIoULoss().elementwise(boxes, boxes), torch.zeros(50), rtol=0, atol=1e-6)


@of_each(BINARY)
@pytest.mark.parametrize("unread", [-1.0, 2.0, math.nan])
def test_background_rows_read_neither_overlap_nor_weight(loss: BinaryLoss, unread: float) -> None:
    """Background is any label without a column, here 3 and -1."""
    labels, found = torch.tensor([1, 3, -1]), []
    for other_iou, other_weight in ((unread, math.nan), (0.5, 1.0)):
        logits = torch.tensor([[1.0, -0.5, 0.3]]).repeat(3, 1).requires_grad_()
        iou, weight = torch.tensor([0.6, other_iou, other_iou]), torch.tensor([0.7, other_weight, other_weight])
        value = loss.elementwise(logits, labels, iou, weight)
        value.sum().backward()
        found.append((value.detach(), logits.grad))
    assert_close(found[0], found[1], rtol=1e-6, atol=0)  # NaN equals nothing
    assert_close(found[0][0][1], found[0][0][2], rtol=0, atol=0)


@of_each([*CLASSES, BRANCH])
def test_a_set_passes_no_gradient_to_its_boxes(case, loss: losses.SetLoss) -> None:
    preds, targets, match = case
    for x in (preds.logits, preds.boxes, preds.iou):
        x.requires_grad_()
    loss(preds, targets, match, ONE).sum().backward()
    assert preds.boxes.grad is None
    read, other = (preds.iou, preds.logits) if loss is BRANCH else (preds.logits, preds.iou)
    assert read.grad.abs().sum() > 0 and other.grad is None


@of_each([*BINARY, BRANCH])
def test_plain_tensors_pass_no_gradient_to_the_overlap(loss: losses.SetLoss) -> None:
    logits, *others = plain_inputs(loss)
    iou = others[-2].requires_grad_()
    loss.elementwise(logits.requires_grad_(), *others).sum().backward()
    assert iou.grad is None and logits.grad.abs().sum() > 0


def test_iou_branch_by_hand() -> None:
    """BCE(v, u) = ln(1 + e^x) - u x of the logits x: the prediction is twice as wide, then the target's own."""
    wide, own = [0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.4]
    preds = Predictions(
        logits=torch.zeros(1, 1, 3, 1),
        boxes=torch.tensor([[[wide, own, wide]]]),
        iou=torch.tensor([[[1.5, -2.0, 9.0]]]),
    )
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[own]]), counts=[1])
    zero = torch.zeros(2, dtype=torch.int64)
    match = Match(zero, zero, torch.tensor([0, 1]), zero, weight=torch.tensor([1.0, 0.25]))
    u = [0.08 / (0.16 + 1e-6), 0.08 / (0.08 + 1e-6)]
    expected = [math.log1p(math.exp(1.5)) - u[0] * 1.5, math.log1p(math.exp(-2.0)) + u[1] * 2]
    value = BRANCH(preds, targets, match, torch.tensor(2.0))
    assert value.tolist() == pytest.approx([(expected[0] + 0.25 * expected[1]) / 2], rel=1e-5)
    logits, iou, weight = torch.tensor([[1.5, -2.0]]), torch.tensor([u]), torch.tensor([[1.0, 0.25]])
    assert BRANCH.elementwise(logits, iou)[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert BRANCH.elementwise(logits, iou, weight)[0, 1].item() == pytest.approx(0.25 * expected[1], rel=1e-5)


def test_softmax_cross_entropy_by_hand() -> None:
    """Probabilities 0.5, 0.3 and, for "no object", 0.2; a set's loss is the mean by the weights 1 and 0.1."""
    loss, logits = losses.SoftmaxCrossEntropy(), torch.tensor([0.5, 0.3, 0.2]).log().repeat(2, 2, 1)
    value = loss.elementwise(logits, torch.tensor([[0, 2], [1, 2]]))
    expected = [[-math.log(0.5), -0.1 * math.log(0.2)], [-math.log(0.3), -0.1 * math.log(0.2)]]
    assert_close(value, torch.tensor(expected), rtol=1e-5, atol=0)
    assert loss.elementwise(logits[0, 0], torch.tensor(1)).item() == pytest.approx(-math.log(0.3), rel=1e-5)
    preds = Predictions(logits=logits[None, 1:], boxes=torch.rand(1, 1, 2, 4), softmax=True)
    targets = Targets(labels=torch.tensor([[1]]), boxes=torch.rand(1, 1, 4), counts=[1])
    match = Match(*torch.zeros(4, 1, dtype=torch.int64))
    mean = -(math.log(0.3) + 0.1 * math.log(0.2)) / 1.1
    assert loss(preds, targets, match, torch.tensor(7.0)).tolist() == pytest.approx([mean], rel=1e-5)


def test_box_losses_by_hand() -> None:
    """Twice as wide as the target: IoU 1/2, and the hull is the union. Then two equal squares with
    a gap as wide as they are: IoU 0, and a third of the hull is empty.
    """
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.2, 0.5, 0.2, 0.2]]])
    others = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.6, 0.5, 0.2, 0.2]]])
    for loss, expected in ((losses.L1Loss(), [0.2, 0.4]), (losses.GIoULoss(), [1 / 2, 4 / 3])):
        assert_close(loss.elementwise(boxes, others), torch.tensor([expected]), rtol=1e-5, atol=0)
        value = loss.elementwise(boxes, others, torch.tensor([[0.5, 0.25]]))
        assert_close(value, torch.tensor([[expected[0] / 2, expected[1] / 4]]), rtol=1e-5, atol=0)


def test_position_supervision_rescales_image_by_image_in_each_row() -> None:
    """Predictions as high as their targets and `part` as wide, so that `part` is the IoU. Of a probability 1/2, a match
    costs (T - 1/2)^2 ln 2 and everything else ln 2 / 4.
    """
    part = {(0, 0): [0.9, 0.3], (0, 1): [0.5, 0.4], (1, 0): [0.6, 0.2], (1, 1): [0.8, 0.1]}
    preds = Predictions(logits=torch.zeros(2, 2, 3, 2), boxes=torch.full((2, 2, 3, 4), 0.5))
    targets = Targets(torch.tensor([[0, 1], [1, 0]]), torch.full((2, 2, 4), 0.5), counts=[2, 2])
    pairs, psi, expected = [], [], [0.0, 0.0]
    for (row, image), parts in part.items():
        ious = [p * 0.25 / (0.25 + 1e-6) for p in parts]
        for target, iou in enumerate(ious):
            preds.boxes[row, image, target + 1, 2] = 0.5 * parts[target]
            pairs.append((row, image, target + 1, target))
            psi.append(iou**2 * max(ious) / max(x**2 for x in ious))
            expected[row] += (psi[-1] - 0.5) ** 2 * math.log(2)
    expected = [x + (2 * 3 * 2 - 4) * math.log(2) / 4 for x in expected]
    order = [5, 0, 7, 2, 4, 1, 3, 6]
    match = Match(*torch.tensor([pairs[i] for i in order]).unbind(1))
    loss = losses.PositionSupervisedLoss()
    assert_close(loss.overlap(preds, targets, match), torch.tensor([psi[i] for i in order]), rtol=1e-5, atol=0)
    assert loss(preds, targets, match, ONE).tolist() == pytest.approx(expected, rel=1e-5)
