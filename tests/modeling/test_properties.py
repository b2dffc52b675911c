"""What must hold for every batch: matching and all losses together, over random batches."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align_detr import modeling
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import Match, Predictions, Targets

ROWS, CLASSES = 2, 3
pytestmark = pytest.mark.usefixtures("solver")
CLASS_LOSSES = [
    modeling.SigmoidFocalLoss,
    modeling.IABCELoss,
    modeling.AlignLoss,
    modeling.QualityFocalLoss,
    modeling.VariFocalLoss,
    modeling.GIoUAwareFocalLoss,
    modeling.DualWeightingLoss,
    modeling.MuSuLoss,
    modeling.MatchabilityAwareLoss,
    modeling.PositionSupervisedLoss,
    modeling.SoftmaxCrossEntropy,
]
batches = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Up to more objects than queries, and images and batches without any.
counts_of_images = st.lists(st.integers(0, 9), min_size=1, max_size=4)
some = {
    "counts": counts_of_images,
    "queries": st.integers(1, 8),
    "copies": st.integers(1, 4),
    "seed": st.integers(0, 2**31 - 1),
}


def criterion(class_loss: modeling.SetLoss, copies: int) -> SetCriterion:
    """Return a criterion with copies on the first layer and the proposals, weighting and an IoU branch."""
    if class_loss.softmax:
        class_costs, weighting = [modeling.SoftmaxCost(weight=1.0)], None
    else:
        class_costs, weighting = (
            [modeling.FocalCost(weight=2.0), modeling.PositionModulatedCost(weight=1.0)],
            PrimeSampleWeighting(),
        )
    costs = [*class_costs, modeling.L1Cost(weight=5.0), modeling.GIoUCost(weight=2.0)]
    return SetCriterion(
        matcher=modeling.HungarianMatcher(costs=costs, copies={"main": [copies, 1], "enc": copies}),
        losses=[class_loss, modeling.L1Loss(), modeling.GIoULoss(), modeling.IoUBranchLoss()],
        weighting=weighting,
        set_weights={"enc": 0.5},
    )


def random_batch(
    counts: list[int], queries: int, seed: int, softmax: bool = False
) -> tuple[dict[str, Predictions], Targets]:
    """Draw predictions of the sets `main`, `enc` and `dn`, the latter matched to the first targets."""
    generator = torch.Generator().manual_seed(seed)
    images, longest = len(counts), max([1, *counts])

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def predict(rows: int, size: int, **kwargs) -> Predictions:
        return Predictions(
            logits=(rand(rows, images, size, CLASSES + 1) * 6 - 3).requires_grad_(),
            boxes=(rand(rows, images, size, 4) * 0.5 + 0.2).requires_grad_(),
            iou=(rand(rows, images, size) * 4 - 2).requires_grad_(),
            softmax=softmax,
            **kwargs,
        )

    pairs = [[row, b, t, t] for row in range(ROWS) for b, n in enumerate(counts) for t in range(n)]
    known = Match(*torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4).unbind(1))
    sets = {
        "main": predict(ROWS, queries),
        "enc": predict(1, queries + 3, class_agnostic=True),
        "dn": predict(ROWS, max([0, *counts]), match=known, scale=2.0),
    }
    labels = torch.randint(CLASSES, (images, longest), generator=generator)
    return sets, Targets(labels=labels, boxes=rand(images, longest, 4) * 0.5 + 0.2, counts=counts)


def tensors(sets: dict[str, Predictions]) -> Iterator[torch.Tensor]:
    for preds in sets.values():
        yield from (preds.logits, preds.boxes, preds.iou)


def select(preds: Predictions, images: list[int]) -> Predictions:
    """Return the predictions of some images, in that order."""
    return dataclasses.replace(
        preds, logits=preds.logits[:, images], boxes=preds.boxes[:, images], iou=preds.iou[:, images]
    )


def select_targets(targets: Targets, images: list[int]) -> Targets:
    return Targets(
        labels=targets.labels[images], boxes=targets.boxes[images], counts=[targets.counts[i] for i in images]
    )


def pairs_of_image(match: Match, image: int) -> dict[tuple[int, int, int], float]:
    """Return (row, query, target) of an image, with the weights."""
    columns = (x.tolist() for x in (match.row, match.image, match.query, match.target, match.weight))
    return {(r, q, t): w for r, b, q, t, w in zip(*columns, strict=True) if b == image}


def weighted_matches(whole: SetCriterion, sets: dict[str, Predictions], targets: Targets) -> dict[str, Match]:
    solved = {name: sets[name] for name in ("main", "enc")}
    matches = whole.matcher(solved, targets)
    return {name: whole.weighting(p, p.own_targets(targets), matches[name]) for name, p in solved.items()}


@batches
@given(**some, data=st.data())
def test_the_order_of_images_plays_no_part(counts, queries, copies, seed, data) -> None:
    order = data.draw(st.permutations(range(len(counts))))
    whole = criterion(modeling.IABCELoss(), copies)
    sets, targets = random_batch(counts, queries, seed)
    match = weighted_matches(whole, sets, targets)
    moved = {name: select(sets[name], order) for name in ("main", "enc")}
    again = weighted_matches(whole, moved, select_targets(targets, order))
    for name in match:
        for new, old in enumerate(order):
            ours, theirs = pairs_of_image(again[name], new), pairs_of_image(match[name], old)
            assert ours == pytest.approx(theirs)


@batches
@given(**some)
def test_a_batch_equals_its_images(counts, queries, copies, seed) -> None:
    whole = criterion(modeling.IABCELoss(), copies)
    sets, targets = random_batch(counts, queries, seed)
    match = weighted_matches(whole, sets, targets)
    for image in range(len(counts)):
        part = {name: select(sets[name], [image]) for name in ("main", "enc")}
        alone = weighted_matches(whole, part, select_targets(targets, [image]))
        for name in match:
            assert pairs_of_image(alone[name], 0) == pytest.approx(pairs_of_image(match[name], image))


@batches
@given(**some)
def test_every_image_keeps_as_many_pairs_as_it_can(counts, queries, copies, seed) -> None:
    """There are n k pairs, k bounded by half of the queries and at least 1, or all queries if n is larger."""
    sets, targets = random_batch(counts, queries, seed)
    matcher = criterion(modeling.IABCELoss(), copies).matcher
    match = matcher({name: sets[name] for name in ("main", "enc")}, targets)["main"]
    for row, wanted in enumerate((copies, 1)):
        for image, n in enumerate(counts):
            here = (match.row == row) & (match.image == image)
            query, target = match.query[here], match.target[here]
            assert len(query.unique()) == len(query)
            assert target.numel() == 0 or target.max() < n
            if n >= queries:
                assert len(query) == queries and len(target.unique()) == queries
            elif n:
                bound = max(1, min(wanted, queries // (2 * n)))
                assert target.bincount(minlength=n).tolist() == [bound] * n


def expected_names() -> set[str]:
    suffixes = ["", "_0", "_enc", "_dn", "_dn_0"]
    return {f"loss_{loss}{suffix}" for loss in ("class", "bbox", "giou", "iou") for suffix in suffixes}


def check_finite(losses: dict[str, torch.Tensor], sets: dict[str, Predictions]) -> None:
    assert set(losses) == expected_names()
    assert all(x.dtype == torch.float32 and torch.isfinite(x) for x in losses.values())
    sum(losses.values()).backward()
    for tensor in tensors(sets):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("class_loss", CLASS_LOSSES)
@settings(max_examples=8, deadline=None)
@given(**some, extreme=st.booleans())
def test_losses_and_gradients_are_finite(class_loss, precision, counts, queries, copies, seed, extreme) -> None:
    """This holds for logits of +-1e4, for boxes without area, touching and equal ones, and in half precision."""
    sets, targets = random_batch(counts, queries, seed, softmax=bool(class_loss.softmax))
    with torch.no_grad():
        targets.boxes[:, 0, 2:] = 0.0
        for preds in sets.values():
            if extreme:
                preds.logits[..., 0], preds.logits[..., 1], preds.iou[..., 0::2] = 1e4, -1e4, -1e4
            if preds.boxes.shape[2]:
                preds.boxes[:, :, 0] = targets.boxes[:, 0]
            if preds.boxes.shape[2] > 2:
                preds.boxes[:, :, 1] = targets.boxes[:, -1]
                preds.boxes[:, :, 2, 0] = targets.boxes[:, -1, 0] + targets.boxes[:, -1, 2]
                preds.boxes[:, :, 2, 1:] = targets.boxes[:, -1, 1:]
    if precision is not None:
        for preds in sets.values():
            preds.logits = preds.logits.detach().to(precision).requires_grad_()
            preds.boxes = preds.boxes.detach().to(precision).requires_grad_()
            preds.iou = preds.iou.detach().to(precision).requires_grad_()
    whole = criterion(class_loss(), copies)
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        losses = whole(sets, targets)
    check_finite(losses, sets)


@batches
@given(**some, more=st.integers(1, 3))
def test_padding_targets_play_no_part(counts, queries, copies, seed, more) -> None:
    whole = criterion(modeling.PositionSupervisedLoss(), copies)
    sets, targets = random_batch(counts, queries, seed)
    longer = Targets(
        labels=torch.cat([targets.labels, torch.full((len(counts), more), CLASSES - 1)], dim=1),
        boxes=torch.cat([targets.boxes, torch.rand(len(counts), more, 4)], dim=1),
        counts=counts,
    )
    padded = whole(sets, longer)
    for name, value in whole(sets, targets).items():
        assert_close(value, padded[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("class_loss", CLASS_LOSSES)
@settings(max_examples=8, deadline=None)
@given(**some)
def test_losses_alone_are_float32_under_autocast(class_loss, counts, queries, copies, seed) -> None:
    """This holds for a loss called alone, on predictions in half precision."""
    sets, targets = random_batch(counts, queries, seed, softmax=bool(class_loss.softmax))
    whole = criterion(class_loss(), copies)
    matches = whole.matcher(sets, targets)
    preds = dataclasses.replace(sets["main"], logits=sets["main"].logits.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = whole.losses[0](preds, targets, matches["main"], torch.tensor(1.0))
    expected = whole.losses[0](preds.float(), targets, matches["main"], torch.tensor(1.0))
    assert value.dtype == torch.float32
    assert_close(value, expected, rtol=1e-6, atol=1e-6)
