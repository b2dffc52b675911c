"""Deformable-DETR and its relatives against the reference networks: hidden states, references, predictions and
proposals, with weights loaded through the key map.
"""

import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.structures import Memory, Predictions
from support.deformable import Parts, build_parts
from support.golden import Fixture, fixtures, pad_targets


def kind_of(fixture: Fixture) -> str:
    """Return what the file's name and options make of it."""
    name, config = fixture.name, fixture.meta["config"]
    two_stage = config.get("as_two_stage", config.get("two_stage", False))
    if name.startswith("h_"):
        return "hybrid"
    if name.startswith("dab_"):
        return "dab_two_stage" if two_stage else "dab"
    return "two_stage" if two_stage else "refine" if config.get("with_box_refine", False) else "plain"


def build(fixture: Fixture) -> Parts:
    """Build the parts of the sizes that the fixture states, with its weights; what its options leave open, the arrays
    show.
    """
    config, kind = fixture.meta["config"], kind_of(fixture)
    levels = sum(name.startswith("mask_lvl") for name in fixture.input)
    maps = {name.removeprefix("feat_"): x.shape[1] for name, x in fixture.input.items() if name.startswith("feat_")}
    offsets = next(x for name, x in fixture.weights.items() if name.endswith("sampling_offsets.bias"))
    one_to_one, hybrid = config.get("num_queries_one2one", 0), kind == "hybrid"
    model = build_parts(
        kind,
        in_channels={name: maps[name] for name in sorted(maps)[-levels:]},
        embed_dim=config["embed_dim"],
        num_heads=config["num_heads"],
        ffn_dim=config["feedforward_dim"],
        enc_layers=config["enc_layers"],
        dec_layers=config["dec_layers"],
        num_queries=one_to_one + config["num_queries_one2many"] if hybrid else config["num_queries"],
        num_one_to_one=one_to_one,
        num_classes=config["num_classes"],
        num_levels=levels,
        num_points=offsets.numel() // (config["num_heads"] * levels * 2),
        num_groups=config.get("neck_groups", 32),
        eps=config.get("inverse_sigmoid_eps", 1e-3),
        offset=config.get("pos_offset", -0.5),
        mixed_selection=config.get("mixed_selection", False),
        look_forward_twice=config.get("look_forward_twice", False),
    )
    state = convert(fixture.weights, num_classes=None)
    if hybrid and not config.get("mixed_selection", False):  # whose keys are those of the plain two-stage model
        state = {key.replace("queries.", "queries.source.", 1): value for key, value in state.items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


def encode(model: Parts, fixture: Fixture, features: dict[str, Tensor] | None = None) -> Memory:
    """Return the encoded tokens of the recorded maps, or of `features`."""
    return model.encoder(fixture.tokens(model.neck, features))


def check(preds: Predictions, logits: Tensor, boxes: Tensor) -> None:
    assert_close(preds.logits, logits, atol=3e-4, rtol=0)
    assert_close(preds.boxes, boxes, atol=3e-5, rtol=0)


def check_states(model: Parts, memory: Memory, fixture: Fixture) -> None:
    """Hidden states, and the references that each layer's boxes start from."""
    proposals = None if model.proposals is None else model.proposals(memory)
    hidden, references = model.decoder.decode(model.queries(memory, proposals), memory, model.head)
    assert_close(hidden, fixture.output["inter_states"], atol=3e-4, rtol=0)
    start = fixture.output["init_reference"].expand_as(references[0])
    assert_close(references[0], start, atol=3e-5, rtol=0)
    for ours, theirs in zip(references[1:], fixture.output["inter_references"], strict=False):
        assert_close(ours, theirs, atol=3e-5, rtol=0)


@fixtures("deformable_detr*", "raw_deformable_detr*", "dab_deformable_detr*", "h_deformable_detr*")
def test_forward(fixture: Fixture) -> None:
    """In evaluation, where a hybrid detector has its one-to-one queries alone."""
    model, expected = build(fixture), fixture.output
    memory = encode(model, fixture)
    sets = model.predict(memory)
    assert set(sets) == ({"main"} if model.proposals is None else {"main", "enc"})
    check(sets["main"], expected["pred_logits"], expected["pred_boxes"])
    if kind_of(fixture) == "hybrid":
        return  # whose other numbers are those of training
    if "enc_pred_logits" in expected:
        check(sets["enc"], expected["enc_pred_logits"][None], expected["enc_pred_boxes"][None])
    if "inter_states" in expected:
        check_states(model, memory, fixture)


@fixtures("h_deformable_detr*", having=["output/train_pred_"])
def test_hybrid_training(fixture: Fixture) -> None:
    model, expected = build(fixture).train(), fixture.output
    memory = encode(model, fixture)
    images = len(memory.tokens)
    targets = pad_targets(torch.zeros(images).long(), torch.full((images, 4), 0.5), [1] * images)
    sets = model.predict(memory, targets)
    check(sets["main"], expected["train_pred_logits"], expected["train_pred_boxes"])
    check(sets["o2m"], expected["train_one2many_pred_logits"], expected["train_one2many_pred_boxes"])
    check(sets["enc"], expected["enc_pred_logits"][None], expected["enc_pred_boxes"][None])
    references = model.decoder.decode(model.queries(memory, model.proposals(memory), targets), memory, model.head)[1]
    assert_close(references[0], expected["init_reference"], atol=3e-5, rtol=0)
    for ours, theirs in zip(references[1:], expected["inter_references"], strict=False):
        assert_close(ours, theirs, atol=3e-5, rtol=0)
