"""Deformable detectors as a whole: batches of different sizes, padding, few tokens, no objects, autocast."""

from collections.abc import Sequence

import pytest
import torch
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.deformable import (
    DeformableDecoderLayer,
    DeformableEncoder,
    DeformableEncoderLayer,
    in_each_level,
    token_centres,
)
from align_detr.modeling.meta_arch import DeformableDETR
from align_detr.modeling.neck import MultiScaleNeck
from align_detr.modeling.postprocess import TopKPostprocess
from align_detr.structures import Memory, Predictions
from support.detectors import DEFORMABLE, deformable_detector
from support.inputs import image_input

ALL = pytest.mark.parametrize("kind", DEFORMABLE)
TWO_STAGE = [kind for kind in DEFORMABLE if kind in ("two_stage", "dab_two_stage", "hybrid", "dino")]


def neck(**options: object) -> MultiScaleNeck:
    torch.manual_seed(0)
    position = SinePositionEncoding(num_features=4, offset=-0.5)
    return MultiScaleNeck(in_channels=dict(res4=3, res5=5), embed_dim=8, position=position, num_groups=2, **options)


def features() -> dict[str, Tensor]:
    return {"res4": torch.randn(2, 3, 4, 6), "res5": torch.randn(2, 5, 2, 3)}


def test_levels_of_the_neck() -> None:
    module = neck(num_levels=4)
    memory = module(features(), [(64, 96), (64, 40)], (64, 96))
    assert memory.shapes == [(4, 6), (2, 3), (1, 2), (1, 1)] and memory.tokens.shape == (2, 33, 8)
    # 96 pixels are 6, 3, 2 and 1 columns; the first pixel of columns 0, 1, 2 is within 40 pixels of 6 columns of 16,
    # 0 and 1 of 3 columns of 32, 0 of 2 columns of 48
    assert [sizes[1] for sizes in memory.valid_sizes] == [(4, 3), (2, 2), (1, 1), (1, 1)]
    assert memory.padding[0].sum() == 0 and memory.padding[1].sum() == 12 + 2 + 1
    assert neck(num_levels=4)(features(), [(64, 96)] * 2, (64, 96)).padding is None


def test_further_levels_come_from_the_map_as_it_is_and_then_from_each_other() -> None:
    module, maps = neck(num_levels=4), features()
    levels = module._project(maps)
    assert_close(levels[2], module.levels[2](maps["res5"]))
    assert_close(levels[3], module.levels[3](levels[2]))


def test_levels_have_vectors() -> None:
    module = neck(num_levels=2)
    memory = module(features(), [(64, 96)] * 2, (64, 96))
    sine = module.position(torch.zeros(2, 2, 3, dtype=torch.bool)).flatten(2).transpose(1, 2)
    assert_close(memory.position[:, 24:], sine + module.level_embed[1])


def test_neck_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="model.neck.in_channels names 'res4', but the backbone gives res3, res5"):
        neck()({"res3": torch.zeros(1), "res5": torch.zeros(1)}, [(1, 1)], (1, 1))
    with pytest.raises(ConfigError, match="num_levels is 1, but in_channels names the 2 maps res4, res5"):
        neck(num_levels=1)


def test_references_by_hand() -> None:
    """An image that covers 1 x 2 of 2 x 4 tokens: its second token lies at x = 3/4 of the image, 3/8 of the map."""
    memory = Memory(
        tokens=torch.zeros(1, 8, 4),
        position=torch.zeros(1, 8, 4),
        padding=None,
        shapes=[(2, 4)],
        valid_sizes=[[(1, 2)]],
    )
    assert_close(token_centres(memory)[0, 1], torch.tensor([0.75, 0.5]))
    assert_close(in_each_level(token_centres(memory), memory)[0, 1, 0], torch.tensor([0.375, 0.25]))
    boxes = torch.tensor([[[0.75, 0.5, 0.5, 1.0]]])
    assert_close(in_each_level(boxes, memory), torch.tensor([[[[0.375, 0.25, 0.25, 0.5]]]]))


def test_attention_keeps_its_own_initialisation() -> None:
    """The layers start with Xavier's matrices, but offsets and weights of sampling points ignore the content."""
    torch.manual_seed(0)
    model = deformable_detector("refine")
    sizes = dict(embed_dim=16, num_heads=2, ffn_dim=24, num_levels=2, num_points=2)
    for stack, name in (
        (DeformableEncoder(layer=DeformableEncoderLayer(**sizes), num_layers=2), "self_attn"),
        (type(model.decoder)(layer=DeformableDecoderLayer(**sizes), num_layers=2), "cross_attn"),
    ):
        for layer in stack.layers:
            attention = getattr(layer, name)
            assert not attention.sampling_offsets.weight.any() and attention.sampling_offsets.bias.any()
            assert not attention.attention_weights.weight.any() and attention.value_proj.weight.any()
            assert layer.ffn.linear1.weight.any()


def detections(model: DeformableDETR, batch: Sequence[dict]) -> list[Instances]:
    with torch.no_grad():
        return [x["instances"] for x in model.eval()(batch)]


def check_equal(ours: Instances, theirs: Instances) -> None:
    assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
    assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=2e-3, rtol=0)
    assert torch.equal(ours.pred_classes, theirs.pred_classes)


@ALL
def test_an_image_is_seen_the_same_in_any_batch(kind: str) -> None:
    """Detections ignore the batch, although group norm, strides and anchors' positions would depend on its padding."""
    model = deformable_detector(kind)
    batch = [image_input(96, 128, 2), image_input(70, 40, 1), image_input(64, 65, 3)]
    together = detections(model, batch)
    for image, found in zip(batch, together, strict=True):
        check_equal(found, detections(model, [image])[0])
    assert not torch.equal(together[1].scores, together[2].scores)
    for found, permuted in zip(together, detections(model, batch[::-1])[::-1], strict=True):
        check_equal(found, permuted)


@ALL
def test_padding_changes_nothing(kind: str) -> None:
    """Other tokens in the padding change no prediction."""
    model = deformable_detector(kind).eval()
    memory = model.extract_features([torch.randn(3, 96, 128), torch.randn(3, 70, 40)])
    assert memory.padding.any()
    other = memory.with_tokens(torch.where(memory.padding[..., None], 1e3, memory.tokens))
    with torch.no_grad():
        ours, theirs = (model.predict(model.encoder(x)) for x in (memory, other))
    for name, preds in ours.items():
        seen = torch.ones(preds.logits.shape[1:3], dtype=torch.bool) if preds.valid is None else preds.valid
        assert_close(preds.logits[:, seen], theirs[name].logits[:, seen], atol=1e-5, rtol=0)
        assert_close(preds.boxes[:, seen], theirs[name].boxes[:, seen], atol=1e-5, rtol=0)


def train_step(model: DeformableDETR, batch: Sequence[dict]) -> dict[str, Tensor]:
    """Train one step; check that losses and the gradient of every parameter are finite."""
    model.zero_grad()
    losses = model.train()(batch)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses


@ALL
def test_training_with_and_without_objects(kind: str) -> None:
    model = deformable_detector(kind)
    names = {
        frozenset(train_step(model, [image_input(64, 96, n), image_input(70, 40, m)]))
        for n, m in ((3, 2), (0, 2), (0, 0), (9, 0))
    }
    (names,) = names
    sets = {"enc"} if kind in TWO_STAGE else set()
    sets |= {"o2m", "o2m_0"} if kind == "hybrid" else set()
    assert names == {f"loss_{loss}{x and '_' + x}" for loss in ("class", "bbox", "giou") for x in {"", "0", *sets}}


@pytest.mark.parametrize("kind", TWO_STAGE)
def test_fewer_tokens_than_queries(kind: str) -> None:
    """An image of 16 x 16 pixels has 4 + 1 + 1 + 1 tokens in a batch of one; the config asks for 60 queries."""
    model = deformable_detector(kind, num_queries=60)
    tiny, large = image_input(16, 16, 2), image_input(96, 128, 2)
    train_step(model, [tiny, large])
    train_step(model, [tiny])
    alone = detections(model, [tiny])[0]
    assert len(alone) == 10 and alone.scores.isfinite().all() and alone.pred_boxes.tensor.isfinite().all()
    check_equal(detections(model, [large, tiny])[1], alone)
    model.postprocess.num_detections = 1000  # 7 queries x 3 classes are all there is
    assert len(detections(model, [tiny])[0]) == 21


@pytest.mark.parametrize("kind", [kind for kind in TWO_STAGE if kind != "hybrid"])  # whose two kinds share the tokens
def test_proposals_beyond_the_tokens_change_nothing(kind: str) -> None:
    """Padding queries are neither attended to, matched nor counted: as many queries as tokens give the same losses."""
    tiny = image_input(16, 16, 2)
    enough, more = deformable_detector(kind, num_queries=7), deformable_detector(kind, num_queries=30)
    state = enough.state_dict()
    for key, value in more.state_dict().items():
        state[key] = torch.cat([state[key], value[7:]]) if value.shape != state[key].shape else state[key]
    more.load_state_dict(state)
    check_equal(detections(more, [tiny])[0], detections(enough, [tiny])[0])
    ours, theirs = train_step(more, [tiny]), train_step(enough, [tiny])
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=1e-5, atol=1e-5)


def test_padding_of_the_batch_does_not_train_the_proposals() -> None:
    """The set `enc` of an image is the same with more padding around its tokens."""
    model = deformable_detector("two_stage")
    memory = model.encoder(model.eval().extract_features([torch.randn(3, 64, 64)]))
    padded = model.encoder(model.extract_features([torch.randn(3, 128, 128), torch.randn(3, 64, 64)]))
    assert memory.tokens.shape[1] < padded.tokens.shape[1]
    for x in (memory, padded):
        preds = model.proposals(x).predictions
        assert preds.valid[-1].sum() == 64 + 16 + 4 + 1  # strides 8, 16, 32 and 64


@ALL
def test_autocast(kind: str) -> None:
    model = deformable_detector(kind)
    batch = [image_input(64, 96, 2), image_input(70, 40, 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_step(model, batch)
        found = detections(model, batch)
    assert all(x.pred_boxes.tensor.dtype == torch.float32 and x.scores.isfinite().all() for x in found)


@ALL
def test_boxes_and_references_stay_exact_under_autocast(kind: str) -> None:
    """Boxes and references are float32, also those that pass from layer to layer."""
    model = deformable_detector(kind).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory = model.encoder(model.extract_features([torch.randn(3, 64, 96)]))
        proposals = None if model.proposals is None else model.proposals(memory)
        parts = model.queries(memory, proposals)
        references = model.decoder.decode(parts, memory, model.head)[1]
        sets = model.predict(memory)
    assert all(x.dtype == torch.float32 for x in references)
    assert all(part.reference.dtype == torch.float32 for part in parts)
    assert all(x.dtype == torch.float32 for preds in sets.values() for x in (preds.logits, preds.boxes))


def test_queries_that_are_padding_give_no_detections() -> None:
    logits = torch.tensor([[[[3.0, 2.0], [1.0, -9.0]]]]).repeat(1, 2, 1, 1)
    valid = torch.tensor([[True, True], [False, True]])
    preds = Predictions(logits=logits, boxes=torch.full((1, 2, 2, 4), 0.5), valid=valid)
    both, one = TopKPostprocess(num_detections=3)(preds, [(10, 10)] * 2)
    assert_close(both.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())
    assert_close(one.scores, torch.tensor([1.0, -9.0]).sigmoid()) and one.pred_classes.tolist() == [0, 1]


def test_queries_that_are_padding_hide_their_numbers() -> None:
    """NaN in padding queries reaches no detection, for any number of detections."""
    logits, boxes = torch.full((1, 2, 3, 2), torch.nan), torch.full((1, 2, 3, 4), torch.nan)
    logits[0, 0, 1], boxes[0, 0, 1] = torch.tensor([-1.0, 4.0]), torch.tensor([0.5, 0.5, 0.2, 0.4])
    valid = torch.tensor([[False, True, False], [False, False, False]])
    preds = Predictions(logits=logits, boxes=boxes, valid=valid)
    for wanted, found in [(1, 1), (2, 2), (3, 2), (100, 2)]:
        one, none = TopKPostprocess(num_detections=wanted)(preds, [(10, 20)] * 2)
        assert len(one) == found and len(none) == 0
        assert_close(one.scores, torch.tensor([4.0, -1.0])[:found].sigmoid())
        assert one.pred_classes.tolist() == [1, 0][:found]
        assert_close(one.pred_boxes.tensor, torch.tensor([[8.0, 3.0, 12.0, 7.0]]).expand(found, -1))


def test_each_image_has_the_size_that_is_asked_for() -> None:
    """Images of equal size pass together; results keep the order of the images, each in the output size it asks for."""
    model = deformable_detector("two_stage")
    batch = [image_input(64, 96, 1), image_input(70, 40, 1), image_input(64, 96, 1), image_input(40, 70, 1)]
    alone = [detections(model, [image])[0] for image in batch]
    seen = []
    hook = model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[::2])))
    for times, image in enumerate(batch, start=1):
        image.update(height=image["height"] * times, width=image["width"] * 2 * times)
    together = detections(model, batch)
    hook.remove()
    assert seen == [(2, 64), (1, 70), (1, 40)]
    for times, (image, one, found) in enumerate(zip(batch, alone, together, strict=True), start=1):
        assert found.image_size == (image["height"], image["width"])
        assert_close(found.scores, one.scores, atol=1e-5, rtol=0)
        scale = torch.tensor([2.0, 1.0, 2.0, 1.0]) * times
        assert_close(found.pred_boxes.tensor, one.pred_boxes.tensor * scale, atol=2e-2, rtol=0)


@pytest.mark.parametrize("num_levels", [1, 3, 5])
def test_levels_of_the_layers_are_those_of_the_neck(num_levels: int) -> None:
    model = deformable_detector("plain").eval()
    layer = DeformableEncoderLayer(embed_dim=16, num_heads=2, ffn_dim=8, num_levels=num_levels)
    model.encoder = DeformableEncoder(layer=layer, num_layers=1)
    with pytest.raises(ValueError, match=f"has num_levels {num_levels}, but the tokens have 4 levels"):
        model([image_input(64, 96, 1)])


def test_eval_does_not_run_the_hybrid_branch() -> None:
    model = deformable_detector("hybrid").eval()
    sets = model.predict(model.encoder(model.extract_features([torch.randn(3, 64, 96)])))
    assert set(sets) == {"main", "enc"} and sets["main"].logits.shape[2] == 4


def test_layers_take_an_activation() -> None:
    layer = DeformableEncoderLayer(embed_dim=8, num_heads=2, ffn_dim=8, activation=nn.PReLU())
    assert isinstance(layer.ffn.activation, nn.PReLU)
