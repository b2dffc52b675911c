"""Denoising queries: known matches, empty batches, and what the rest of the detector sees of them."""

import copy

import pytest
import torch
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.modeling.decoder import blocked_pairs
from align_detr.modeling.queries import (
    AnchorQueries,
    ContrastiveDenoisingQueries,
    DenoisingQueries,
    DenoisingSource,
    LearnedContentQueries,
)
from align_detr.structures import Targets
from support.denoising import CLASSES, DIM, memory_of, some_targets, source_of
from support.detectors import tiny_denoising_detr
from support.inputs import image_input

BOTH = pytest.mark.parametrize("kind", [DenoisingQueries, ContrastiveDenoisingQueries])


def noise_free(kind: type, **options: object) -> DenoisingSource:
    return source_of(kind, label_noise=0.0, box_noise=0.0, **options)


@BOTH
def test_without_noise_the_known_matches_show_their_targets(kind: type) -> None:
    source, targets = noise_free(kind), some_targets(2, 0, 3)
    before = copy.deepcopy(targets)
    dn = source(memory_of(3), None, targets)[0]
    assert_close(dn.match.at(dn.reference[None]), dn.match.of(targets.boxes))
    assert_close(dn.match.at(dn.content[None]), source.embed(dn.match.of(targets.labels)))
    assert len(dn.match) == 5 * dn.groups and dn.scale == dn.groups
    assert (dn.content[1] == 0).all() and (dn.reference[1] == 0.5).all(), "an image without objects has empty queries"
    assert torch.equal(targets.labels, before.labels) and torch.equal(targets.boxes, before.boxes)


@BOTH
def test_groups_see_themselves_and_main(kind: type) -> None:
    """Of 2 groups: the first denoising query sees its own group and the 4 main queries, which see themselves alone."""
    options = dict(groups=2) if kind is DenoisingQueries else dict(dn_number=6)
    parts = source_of(kind, **options)(memory_of(1), None, some_targets(3))
    own = 3 * kind.copies
    seen = ~blocked_pairs(parts)
    assert seen[0].tolist() == [True] * own + [False] * own + [True] * 4
    assert seen[-1].tolist() == [False] * 2 * own + [True] * 4


def test_references_keep_off_the_borders() -> None:
    """A side of 0 becomes 0.001 / 1.001, a centre on the border 1 / 1.001: logits of +-6.9."""
    targets = Targets(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[[0.0, 1.0, 0.0, 0.5]]]), [1])
    dn = noise_free(DenoisingQueries, groups=1)(memory_of(1), None, targets)[0]
    assert_close(dn.reference[0, 0], torch.tensor([0.001 / 1.001, 1 / 1.001, 0.001 / 1.001, 0.5]), atol=0, rtol=1e-5)


def test_negatives_are_not_matched() -> None:
    """Of each group of 2 x 3 queries the first three are positive; 100 // 3 groups."""
    dn = source_of(ContrastiveDenoisingQueries)(memory_of(1), None, some_targets(3))[0]
    assert dn.groups == 33 and dn.content.shape[1] == 198
    assert set((dn.match.query % 6).tolist()) == {0, 1, 2}


@BOTH
def test_order_of_images_plays_no_part(kind: type) -> None:
    source, targets, order = noise_free(kind), some_targets(2, 0, 3), [2, 0, 1]
    permuted = Targets(targets.labels[order], targets.boxes[order], [targets.counts[i] for i in order])
    dn, other = source(memory_of(3), None, targets)[0], source(memory_of(3), None, permuted)[0]
    assert_close(other.content, dn.content[order])
    assert_close(other.reference, dn.reference[order])


@BOTH
def test_draws(kind: type) -> None:
    """Numbers, signs and labels have the sizes asked for, cover their ranges, and repeat with the seed."""
    source = source_of(kind)
    torch.manual_seed(3)
    draws = source.draw(4, 500, torch.device("cpu"))
    torch.manual_seed(3)
    again = source.draw(4, 500, torch.device("cpu"))
    assert torch.equal(draws.box, again.box) and torch.equal(draws.label, again.label)
    for x in (draws.flip, draws.box):
        assert 0 <= x.min() < 0.01 and 0.99 < x.max() < 1
    assert draws.flip.shape == (4, 500) and draws.box.shape == (4, 500, 4)
    assert draws.label.unique().tolist() == list(range(source.label_embed.num_embeddings))
    assert draws.sign is None or draws.sign.unique().tolist() == [-1.0, 1.0]


def test_half_of_the_label_noise_is_what_dino_flips() -> None:
    """Of 20000 copies with label noise 0.5 a quarter is redrawn, and two thirds of those get another of three classes:
    3333, with a standard deviation of 53.
    """
    source = source_of(ContrastiveDenoisingQueries, label_noise=0.5)
    labels = torch.zeros(4, 5000, dtype=torch.int64)
    boxes = torch.full((4, 5000, 4), 0.5)
    torch.manual_seed(0)
    noisy, _ = source.add_noise(labels, boxes, source.draw(4, 5000, torch.device("cpu")))
    assert abs(int((noisy != 0).sum()) - 3333) < 270


@BOTH
def test_evaluation_has_no_denoising(kind: type) -> None:
    parts = source_of(kind)(memory_of(2))
    assert [part.name for part in parts] == ["main"]


def test_main_queries_are_told_unknown() -> None:
    for indicator in (True, False):
        source = source_of(DenoisingQueries, indicator=indicator)
        content = source(memory_of(2))[0].content
        row = source.label_embed.weight[CLASSES]
        assert_close(content, (torch.cat([row, torch.zeros(1)]) if indicator else row).expand(2, 4, -1))
    assert source_of(ContrastiveDenoisingQueries)(memory_of(2))[0].content.abs().max() == 0


def test_indicator_of_learned_contents_is_zero() -> None:
    class ContentBoxes(AnchorQueries):
        def forward(self, *args: object) -> list:
            (part,) = super().forward(*args)
            part.content = torch.ones_like(part.content)
            return [part]

    source = DenoisingQueries(main=ContentBoxes(num_queries=2, embed_dim=DIM), num_classes=CLASSES, embed_dim=DIM)
    dn, main = source(memory_of(1), None, some_targets(1))
    assert (main.content[..., -1] == 0).all() and (dn.content[..., -1] == 1).all()
    assert_close(main.content[0, 0, :-1], 1 + source.label_embed.weight[CLASSES])


@BOTH
def test_references_stay_float32_under_autocast(kind: type) -> None:
    source, targets = noise_free(kind), some_targets(2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dn = source(memory_of(2), None, targets)[0]
    assert dn.reference.dtype == torch.float32
    assert_close(dn.match.at(dn.reference[None]), dn.match.of(targets.boxes))


@BOTH
def test_no_targets(kind: type) -> None:
    """There is no query, an empty match, nothing blocked, and a gradient of zero for the label table."""
    source = source_of(kind)
    parts = source(memory_of(2), None, some_targets(0, 0))
    assert parts[0].content.shape == (2, 0, DIM) and parts[0].reference.shape == (2, 0, 4)
    assert len(parts[0].match) == 0 and blocked_pairs(parts) is None
    torch.cat([part.content for part in parts], dim=1).sum().backward()
    assert source.label_embed.weight.grad[:CLASSES].abs().max() == 0


@BOTH
def test_nothing_is_read_back_from_the_device(kind: type) -> None:
    """Tensors of the meta device have no values: whatever asks for one raises."""
    source, targets = source_of(kind).to("meta"), some_targets(2, 0, 300)
    targets = Targets(targets.labels.to("meta"), targets.boxes.to("meta"), targets.counts)
    memory = memory_of(3)
    memory.tokens = memory.tokens.to("meta")
    dn, main = source(memory, None, targets)
    assert dn.content.is_meta and dn.reference.is_meta and dn.match.query.is_meta
    assert blocked_pairs([dn, main]).is_meta


def test_sources_that_do_not_fit() -> None:
    main = LearnedContentQueries(num_queries=2, embed_dim=DIM)
    source = DenoisingQueries(main=main, num_classes=CLASSES, embed_dim=DIM)
    with pytest.raises(ConfigError, match="whose queries have reference boxes only"):
        source(memory_of(1), None, some_targets(1))
    with pytest.raises(ConfigError, match=r"queries\.max_queries is 1"):
        source_of(ContrastiveDenoisingQueries, max_queries=1)
    with pytest.raises(ConfigError, match=r"queries\.groups is 0"):
        source_of(DenoisingQueries, groups=0)
    with pytest.raises(ConfigError, match=r"queries\.dn_number is 0"):
        source_of(ContrastiveDenoisingQueries, dn_number=0)


@BOTH
@pytest.mark.parametrize("align", [False, True])
def test_training_with_and_without_targets(kind: type, align: bool) -> None:
    """Names are equal, every parameter has a gradient, and without targets the denoising losses are 0."""
    model = tiny_denoising_detr(kind, align).train()
    names = None
    for counts in ((2, 0), (0, 0), (1, 5)):
        model.zero_grad()
        losses = model([image_input(64, 48 + 16 * i, n, CLASSES) for i, n in enumerate(counts)])
        names = names or set(losses)
        assert set(losses) == names and {"loss_class_dn", "loss_bbox_dn_0", "loss_giou_dn"} <= names
        assert all(torch.isfinite(x) for x in losses.values())
        assert all((x == 0) == (sum(counts) == 0) for name, x in losses.items() if "_dn" in name)
        sum(losses.values()).backward()
        for name, p in model.named_parameters():
            assert not p.requires_grad or (p.grad is not None and torch.isfinite(p.grad).all()), name


@BOTH
def test_main_predictions_do_not_depend_on_denoising(kind: type) -> None:
    model = tiny_denoising_detr(kind)
    memory = model.encoder(model.extract_features([torch.randn(3, 64, 64)] * 2))
    with torch.no_grad():
        sets, alone = model.predict(memory, some_targets(2, 1)), model.predict(memory)
    assert set(sets) == {"dn", "main"} and set(alone) == {"main"}
    assert_close(sets["main"].logits, alone["main"].logits, atol=1e-5, rtol=1e-5)
    assert_close(sets["main"].boxes, alone["main"].boxes, atol=1e-5, rtol=1e-5)


@BOTH
def test_autocast_training(kind: type) -> None:
    model = tiny_denoising_detr(kind).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([image_input(64, 64, 2, CLASSES), image_input(48, 64, 0, CLASSES)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(x) and x.dtype == torch.float32 for x in losses.values())
    assert torch.isfinite(model.queries.label_embed.weight.grad).all()
