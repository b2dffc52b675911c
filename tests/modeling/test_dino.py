"""DINO and Group-DINO as whole detectors: batches, empty batches, crowded images, autocast, and groups of queries."""

from collections.abc import Callable

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.testing import assert_close

from align_detr.modeling.meta_arch import DINO, GroupDINO
from align_detr.structures import Memory, Targets
from support.detectors import CLASSES, DIM, GROUPS, QUERIES, tiny_dino
from support.inputs import image_input

SIZES = [(96, 70), (64, 128), (96, 70), (33, 47)]


def images(*counts: int) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, n, CLASSES) for size, n in zip(SIZES, counts, strict=False)]


VARIANTS = pytest.mark.parametrize(
    "build",
    [tiny_dino, lambda: tiny_dino(align=True), lambda: tiny_dino(GroupDINO), lambda: tiny_dino(GroupDINO, align=True)],
    ids=["dino", "align_dino", "group_dino", "align_group_dino"],
)


@pytest.mark.parametrize("kind", [DINO, GroupDINO])
def test_a_batch_gives_what_single_images_give(kind: type[DINO]) -> None:
    model, batch = tiny_dino(kind).eval(), images(0, 0, 0, 0)
    with torch.no_grad():
        together = model(batch)
        alone = [model([image])[0] for image in batch]
        reversed_ = model(batch[::-1])[::-1]
    for a, *others in zip(together, alone, reversed_, strict=True):
        a = a["instances"]
        assert len(a) > 0
        for b in (x["instances"] for x in others):
            assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-4, rtol=0)
            assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
            assert torch.equal(a.pred_classes, b.pred_classes)


@VARIANTS
def test_every_batch_has_the_same_losses_and_gradients(build: Callable[[], DINO]) -> None:
    """This holds if all, some or no images have objects, and for more objects than queries; the gradient of an unused
    parameter is zero, not None.
    """
    model = build().train()
    sets = {f"_{name}{layer}" for name, layers in (("dn", ("", "_0")), ("enc", ("",))) for layer in layers}
    names = {f"loss_{loss}{where}" for loss in ("class", "bbox", "giou") for where in {"", "_0"} | sets}
    for counts in ((2, 0, 1), (0, 0), (0,), (11, 1)):
        model.zero_grad()
        losses = model(images(*counts))
        assert set(losses) == names
        assert all(torch.isfinite(x) for x in losses.values()), counts
        sum(losses.values()).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), (counts, name)
        if not any(counts):
            assert all(losses[name] == 0 for name in names if "_dn" in name or "class" not in name)


def test_a_crowded_image_does_not_add_queries() -> None:
    """300 objects get 200 denoising queries, i.e. 100 pairs; the 200 objects without a query are logged."""
    model, batch = tiny_dino(num_queries=20).train(), images(300, 1)
    memory = model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch]))
    with EventStorage() as storage:
        sets = model.predict(memory, model.targets(batch))
        assert storage.latest()["denoising_queries"][0] == 200 and storage.latest()["denoising_left_out"][0] == 200
    assert sets["dn"].logits.shape == (2, 2, 200, CLASSES)
    losses = model.criterion(sets, model.targets(batch))
    assert all(torch.isfinite(x) for x in losses.values())


@VARIANTS
def test_autocast(build: Callable[[], DINO]) -> None:
    """Losses and boxes are float32, all gradients are finite, and the total is near that without autocast."""
    model, batch = build().train(), images(2, 0, 1)
    totals = []
    for enabled in (False, True):
        model.zero_grad()
        torch.manual_seed(5)  # the noise of denoising
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses = model(batch)
        assert all(torch.isfinite(x) and x.dtype == torch.float32 for x in losses.values())
        totals.append(sum(losses.values()))
        totals[-1].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert_close(totals[1], totals[0], rtol=0.15, atol=0)  # bfloat16 has 8 bits, and may pick other proposals
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.eval()(batch)[0]["instances"]
    assert found.pred_boxes.tensor.dtype == torch.float32


def encoded(model: DINO) -> tuple[Memory, Targets]:
    batch = images(2, 0, 1)
    return model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch])), model.targets(batch)


def test_first_group_predicts_as_evaluation() -> None:
    """The rows of a set are layer x groups + group; neither the other groups nor denoising change the first."""
    model = tiny_dino(GroupDINO).eval()
    with torch.no_grad():
        memory, targets = encoded(model)
        training, evaluation = model.predict(memory, targets)["main"], model.predict(memory)["main"]
    assert training.groups == GROUPS and evaluation.groups == 1
    assert training.logits.shape == (2 * GROUPS, 3, QUERIES, CLASSES)
    assert_close(training.logits[::GROUPS], evaluation.logits, atol=1e-5, rtol=1e-5)
    assert_close(training.boxes[::GROUPS], evaluation.boxes, atol=1e-5, rtol=1e-5)
    for other in (1, 2):
        assert not torch.allclose(training.logits[other::GROUPS], evaluation.logits, atol=1e-2)


def test_a_group_attends_to_itself_only() -> None:
    """Other contents in the last group change the rows of this group and no others."""
    model = tiny_dino(GroupDINO).eval()
    with torch.no_grad():
        memory, targets = encoded(model)
        before = model.predict(memory, targets)["main"].logits
        model.queries.main.content.weight[-QUERIES:] = torch.randn(QUERIES, DIM)
        after = model.predict(memory, targets)["main"].logits
    changed = (before - after).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, False, True] * 2


def test_groups_are_matched_separately_and_averaged() -> None:
    """Three groups of the same contents have the losses of one."""
    plain, grouped = tiny_dino().train(), tiny_dino(GroupDINO).train()
    with torch.no_grad():
        state = plain.state_dict()
        state["queries.main.content.weight"] = state["queries.main.content.weight"].repeat(GROUPS, 1)
    grouped.load_state_dict(state)
    batch, losses = images(2, 0, 1), []
    for model in (plain, grouped):
        model.backbone.eval()
        losses.append(model(batch))
    for name, value in losses[0].items():
        if "_dn" not in name:  # whose noise differs
            assert_close(losses[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_groups_with_fewer_tokens_than_queries() -> None:
    """An image with fewer tokens than queries has padding queries, the same ones per group: they are neither matched
    nor counted, and training and evaluation agree.
    """
    model = tiny_dino(GroupDINO, num_queries=60)
    batch = [image_input(33, 40, 2, CLASSES), image_input(33, 40, 0, CLASSES)]
    memory = model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch]))
    targets = model.targets(batch)
    training, evaluation = model.predict(memory, targets)["main"], model.predict(memory)["main"]
    assert training.valid.shape == (2, 60) and not training.valid.all() and training.valid.any()
    valid = training.valid
    assert_close(training.logits[::GROUPS][:, valid], evaluation.logits[:, valid], atol=1e-5, rtol=1e-5)
    match = model.criterion.matcher({"main": training}, targets)["main"]
    assert len(match) == 2 * 2 * GROUPS and valid[match.image, match.query].all()
    losses = model.train()(batch)
    assert all(torch.isfinite(x) for x in losses.values())


def test_groups_share_the_proposals_of_evaluation() -> None:
    model = tiny_dino(GroupDINO).eval()
    with torch.no_grad():
        memory, targets = encoded(model)
        proposals = model.proposals(memory)
        (training,) = model.queries.main(memory, proposals, targets)
        (evaluation,) = model.queries.main(memory, proposals)
    assert (training.groups, evaluation.groups) == (GROUPS, 1)
    assert torch.equal(evaluation.reference, proposals.reference)
    for reference in training.reference.chunk(GROUPS, dim=1):
        assert torch.equal(reference, proposals.reference)
    assert len({tuple(x) for x in training.content[0].tolist()}) == GROUPS * QUERIES
