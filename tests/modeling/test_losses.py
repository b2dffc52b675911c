"""Every loss against its formula, worked out in probabilities."""

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling import losses
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses.binary import BinaryLoss
from align_detr.modeling.matcher import HungarianMatcher, L1Cost
from align_detr.modeling.postprocess import TopKPostprocess
from align_detr.structures import Match, Predictions, Targets

S, U, W = 0.8, 0.5, 0.6  # probability, IoU and prime-sample weight of the matched query
T = S**0.25 * U**0.75
WT, WU = W * T, W * U

# Loss; w_pos and w_neg of the matched query; w_neg of another entry with the same probability.
TABLE = {
    "focal": (losses.SigmoidFocalLoss(), W * 0.25 * 0.2**2, 0, 0.75 * S**2),
    "IA-BCE": (losses.IABCELoss(), WT, 1 - WT, S**2),
    "IA-BCE, gamma 1.5": (losses.IABCELoss(gamma=1.5), WT, 1 - WT, S**1.5),
    "IA-BCE, alpha 0.5": (losses.IABCELoss(alpha=0.5), W * (S * U) ** 0.5, 1 - W * (S * U) ** 0.5, S**2),
    "Align": (losses.AlignLoss(), (WT - S) ** 2 * WT, (WT - S) ** 2 * (1 - WT), S**2),
    "Align, gamma 1": (losses.AlignLoss(gamma=1.0), abs(WT - S) * WT, abs(WT - S) * (1 - WT), S),
    "QFL": (losses.QualityFocalLoss(), (WU - S) ** 2 * WU, (WU - S) ** 2 * (1 - WU), S**2),
    "QFL, gamma 1": (losses.QualityFocalLoss(gamma=1.0), abs(WU - S) * WU, abs(WU - S) * (1 - WU), S),
    "VFL": (losses.VariFocalLoss(), WU * WU, WU * (1 - WU), 0.75 * S**2),
    "TOOD": (losses.TOODLoss(), (WT - S) ** 2 * WT, (WT - S) ** 2 * (1 - WT), S**2),
    "MuSu": (losses.MuSuLoss(), (WT - S) ** 2 * WT, S**2 * (1 - WT) ** 4, S**2),
    "table B, 2": (losses.UnitPositiveLoss(), W, 0, S**2),
    "table B, 3": (losses.QualityPositiveLoss(), WT, 0, S**2),
    "table B, 4": (losses.EqualGapLoss(), (WT - S) ** 2, (WT - S) ** 2, S**2),
    "table B, 5": (losses.GapPositiveLoss(), (WT - S) ** 2, (1 - WT) * S**2, S**2),
    "MAL": (losses.MatchabilityAwareLoss(), W * U**1.5, 1 - W * U**1.5, S**1.5),
    "GIoU-aware": (
        losses.GIoUAwareFocalLoss(),
        0.25 * (WU - S) ** 2 * WU,
        0.25 * (WU - S) ** 2 * (1 - WU),
        0.75 * S**2,
    ),
    "DW": (losses.DualWeightingLoss(), W, S**2, S**2),
    "position-supervised": (losses.PositionSupervisedLoss(), (WU - S) ** 2 * WU, (WU - S) ** 2 * (1 - WU), S**2),
}
LOSSES = {name: row[0] for name, row in TABLE.items()}
by_name = pytest.mark.parametrize("name", list(TABLE))


@by_name
def test_weights(name: str) -> None:
    """One matched entry, one unmatched class of the same query, and a background query, all of probability 0.8."""
    loss, w_pos, w_neg, other = TABLE[name]
    logits = torch.full((2, 2), math.log(S / (1 - S)))
    value = loss.elementwise(logits, torch.tensor([0, 2]), torch.tensor([U, 0.9]), torch.tensor([W, 1.0]))
    assert value[0, 0].item() == pytest.approx(-w_pos * math.log(S) - w_neg * math.log(1 - S), rel=1e-5)
    rest = -other * math.log(1 - S)
    assert_close(value[[0, 1, 1], [1, 0, 1]], torch.full((3,), rest), rtol=1e-5, atol=0)


@by_name
def test_sets_and_plain_tensors_agree(name: str) -> None:
    torch.manual_seed(0)
    loss = LOSSES[name]
    preds = Predictions(logits=torch.randn(2, 2, 4, 3), boxes=torch.rand(2, 2, 4, 4) * 0.3 + 0.3)
    targets = Targets(labels=torch.tensor([[2, 0], [1, 0]]), boxes=torch.rand(2, 2, 4) * 0.3 + 0.3, counts=[2, 1])
    pairs = [[0, 0, 3, 0], [0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 2, 0], [1, 1, 2, 0]]
    match = Match(*torch.tensor(pairs).unbind(1), weight=torch.tensor([1.0, 0.5, 0.25, 1.0, 0.7]))
    labels, iou, weight = torch.full((2, 2, 4), 3), torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)
    place = (match.row, match.image, match.query)
    labels[place] = match.of(targets.labels)
    iou[place], weight[place] = loss.overlap(preds, targets, match), match.weight
    expected = loss.elementwise(preds.logits, labels, iou, weight).sum((1, 2, 3)) / 3
    assert_close(loss(preds, targets, match, torch.tensor(3.0)), expected)


@by_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits(name: str, dtype: torch.dtype) -> None:
    extremes = torch.tensor([-1e4, -90.0, -17.0, 0.0, 17.0, 90.0, 1e4], dtype=dtype)
    for iou in (0.0, 0.5, 1.0):
        logits = extremes[:, None].repeat(1, 2).requires_grad_()
        value = LOSSES[name].elementwise(logits, torch.zeros(7, dtype=torch.int64), torch.full((7,), iou))
        assert value.dtype == torch.float32 and torch.isfinite(value).all() and (value >= 0).all()
        value.sum().backward()
        assert torch.isfinite(logits.grad).all()


def test_ia_bce_is_smallest_at_its_target() -> None:
    """t is held constant: the gradient s - T pulls the probability to T."""
    logits = torch.tensor([[1.0]], requires_grad=True)
    losses.IABCELoss().elementwise(logits, torch.tensor([0]), torch.tensor([0.5])).sum().backward()
    s = 1 / (1 + math.exp(-1.0))
    assert logits.grad.item() == pytest.approx(s - s**0.25 * 0.5**0.75, rel=1e-5)


def test_quality_floor() -> None:
    assert losses.alignment_quality(torch.tensor(0.5), torch.tensor(0.0)).item() == pytest.approx(0.01)


def test_focal_equals_fvcore() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.tensor([0, 5, 3, 5, 1, 4])
    expected = sigmoid_focal_loss(logits, torch.eye(6)[labels][:, :5], alpha=0.25, gamma=2)
    assert_close(losses.SigmoidFocalLoss().elementwise(logits, labels, torch.zeros(6)), expected)


def test_vfl_without_overlap_is_a_negative() -> None:
    value = losses.VariFocalLoss().elementwise(torch.tensor([[0.0]]), torch.tensor([0]), torch.tensor([0.0]))
    assert value.item() == pytest.approx(0.75 * 0.25 * math.log(2))


def test_matchability_weight_of_negatives_is_constant() -> None:
    """d/dx of s^1.5 softplus(x) with s^1.5 held constant is s^1.5 s: at 0, 0.5^2.5."""
    logits = torch.zeros(1, 1, requires_grad=True)
    losses.MatchabilityAwareLoss().elementwise(logits, torch.tensor([1]), torch.tensor([0.0])).sum().backward()
    assert logits.grad.item() == pytest.approx(0.5**2.5)


def test_a_gamma_without_a_gradient_is_refused() -> None:
    with pytest.raises(ConfigError, match="gamma of IABCELoss is 0.5"):
        losses.IABCELoss(gamma=0.5)


def test_rescaled_squares() -> None:
    """The largest square of an image becomes its largest IoU: 0.8, then 0.4^2 / 0.8; without overlap 0."""
    value = losses.rescaled_squares(torch.tensor([0.8, 0.4, 0.5, 0.0]), torch.tensor([0, 0, 1, 2]), 3)
    assert_close(value, torch.tensor([0.8, 0.2, 0.5, 0.0]))


def test_dual_weighting_negatives_by_hand() -> None:
    """P falls from 1 at 0.5 to 0 at 0.95, linearly in u^2: at 0.7 it is (0.9025 - 0.49) / (0.9025 - 0.25)."""
    u = torch.tensor([0.0, 0.5, 0.7, 0.95, 1.0])
    w_pos, w_neg = losses.DualWeightingLoss().positive(torch.full((5,), 0.5), u, 1.0)
    assert w_pos == 1.0
    assert_close(w_neg, 0.25 * torch.tensor([1.0, 1.0, 0.4125 / 0.6525, 0.0, 0.0]))
    _, w_neg = losses.DualWeightingLoss(power=1.0).positive(torch.full((5,), 0.5), u, 1.0)
    assert_close(w_neg, 0.25 * torch.tensor([1.0, 1.0, 0.25 / 0.45, 0.0, 0.0]))
    with pytest.raises(
        ConfigError, match="power of DualWeightingLoss is 0, but must be a finite number of at least 0.1"
    ):
        losses.DualWeightingLoss(power=0)


def test_giou_aware_overlap_by_hand() -> None:
    """Boxes of one width with a gap as wide between them have GIoU -1/3, one that is half of the other 1/2."""
    boxes = torch.tensor([[0.1, 0.5, 0.2, 0.4], [0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]])
    truth = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.2, 0.2]])
    preds = Predictions(logits=torch.zeros(1, 1, 3, 1), boxes=boxes[None, None])
    targets = Targets(labels=torch.zeros(1, 3, dtype=torch.int64), boxes=truth[None], counts=[3])
    zero, each = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    overlap = losses.GIoUAwareFocalLoss().overlap(preds, targets, Match(zero, zero, each, each))
    assert_close(overlap, torch.tensor([1 / 3, 3 / 4, 1.0]), rtol=1e-4, atol=0)


def test_hidden_queries_take_no_part() -> None:
    """This holds even if they are NaN."""
    torch.manual_seed(0)
    preds = Predictions(logits=torch.randn(1, 1, 4, 2), boxes=torch.rand(1, 1, 4, 4))
    targets = Targets(labels=torch.tensor([[1]]), boxes=torch.rand(1, 1, 4), counts=[1])
    match = Match(*torch.tensor([[0], [0], [0], [0]]))
    fewer = Predictions(logits=preds.logits[:, :, :2], boxes=preds.boxes[:, :, :2])
    preds.valid = torch.tensor([[True, True, False, False]])
    preds.logits[:, :, 2:] = float("nan")
    targets.labels[:] = 0  # with softmax logits, 1 would be "no object"
    for loss in [*LOSSES.values(), losses.SoftmaxCrossEntropy()]:
        assert_close(loss(preds, targets, match, torch.tensor(1.0)), loss(fewer, targets, match, torch.tensor(1.0)))


@pytest.mark.parametrize("loss", [*LOSSES.values(), losses.SoftmaxCrossEntropy(), losses.L1Loss(), losses.GIoULoss()])
def test_a_set_without_queries(loss: losses.SetLoss) -> None:
    preds = Predictions(
        logits=torch.zeros(3, 2, 0, 4, requires_grad=True), boxes=torch.zeros(3, 2, 0, 4, requires_grad=True)
    )
    targets = Targets(labels=torch.zeros(2, 1, dtype=torch.int64), boxes=torch.zeros(2, 1, 4), counts=[0, 0])
    value = loss(preds, targets, Match.empty("cpu"), torch.tensor(1.0))
    assert value.tolist() == [0, 0, 0]
    value.sum().backward()


def branch_set() -> tuple[Predictions, Targets]:
    boxes = torch.tensor([[[[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]]]])
    preds = Predictions(logits=torch.tensor([[[[1.0], [-2.0]]]]), boxes=boxes, iou=torch.tensor([[[0.0, 2.0]]]))
    targets = Targets(labels=torch.tensor([[0]]), boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), counts=[1])
    return preds, targets


def test_iou_branch_loss() -> None:
    """A branch that says 1/2 costs log 2 whatever the IoU; the other query is not matched."""
    preds, targets = branch_set()
    criterion = SetCriterion(matcher=HungarianMatcher(costs=[L1Cost(weight=1.0)]), losses=[losses.IoUBranchLoss()])
    assert criterion({"main": preds}, targets)["loss_iou"].item() == pytest.approx(math.log(2))
    proposals = Predictions(logits=preds.logits, boxes=preds.boxes)
    assert set(criterion({"main": preds, "enc": proposals}, targets)) == {"loss_iou"}
    with pytest.raises(ConfigError, match="what the loss 'iou' needs"):
        criterion({"enc": proposals}, targets)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fused_scores(weight: float) -> None:
    preds, _ = branch_set()
    instances = losses.FusedPostprocess(postprocess=TopKPostprocess(), weight=weight)(preds, [(10, 10)])[0]
    s, v = preds.logits[0, 0, :, 0].sigmoid(), preds.iou[0, 0].sigmoid()
    assert_close(instances.scores, (s ** (1 - weight) * v**weight).sort(descending=True).values)


def test_fused_scores_need_a_branch_and_sigmoid_logits() -> None:
    preds, _ = branch_set()
    fused = losses.FusedPostprocess(postprocess=TopKPostprocess())
    with pytest.raises(ConfigError, match="model.head has no IoU branch"):
        fused(Predictions(logits=preds.logits, boxes=preds.boxes), [(10, 10)])
    preds.softmax = True
    with pytest.raises(ConfigError, match="FusedPostprocess reads sigmoid logits"):
        fused(preds, [(10, 10)])


def test_fused_scores_of_certain_predictions() -> None:
    preds, _ = branch_set()
    preds.logits, preds.iou = torch.tensor([[[[1e4], [-1e4]]]]), torch.tensor([[[1e4, 1e4]]])
    fused = losses.FusedPostprocess(postprocess=TopKPostprocess())(preds, [(10, 10)])[0].scores
    assert fused.tolist() == [1, 0]


def test_every_exported_loss_is_in_the_table() -> None:
    exported = {getattr(losses, name) for name in losses.__all__ if isinstance(getattr(losses, name), type)}
    bases = {BinaryLoss, losses.FocusedLoss, losses.QualityLoss}
    binary = {x for x in exported if issubclass(x, BinaryLoss)} - bases
    assert {type(x) for x in LOSSES.values()} == binary
