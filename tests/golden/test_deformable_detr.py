"""Deformable-DETR and its relatives against the reference networks: hidden states, references, predictions and
proposals, with weights loaded through the key map.
"""

import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.deformable import convert_detrex
from align_detr.structures import Memory, Predictions, Targets
from support.deformable import Parts, build_parts
from support.golden import Fixture, fixtures

DINO_WITHOUT_DENOISING = [
    (r"transformer\.tgt_embed\.weight", "queries.content.weight"),
    (r"transformer\.decoder\.norm\.(.+)", r"decoder.norm.\1"),
    (r"label_enc\.weight", ""),
]


def build(fixture: Fixture, kind: str) -> Parts:
    """Build the parts in the fixture's sizes and load its weights."""
    config = fixture.meta["config"]
    one_to_one = config.get("num_queries_one2one", 0)
    model = build_parts(
        kind,
        in_channels={f"res{3 + i}": n for i, n in enumerate(config["feature_channels"])}
        if "feature_channels" in config
        else {f"res{i}": fixture.input[f"feat_res{i}"].shape[1] for i in (3, 4, 5)},
        embed_dim=config["embed_dim"],
        num_heads=config["num_heads"],
        ffn_dim=config["feedforward_dim"],
        enc_layers=config["enc_layers"],
        dec_layers=config["dec_layers"],
        num_queries=one_to_one + config.get("num_queries_one2many", 0) if one_to_one else config["num_queries"],
        num_one_to_one=one_to_one,
        num_classes=config["num_classes"],
        num_levels=config.get("num_feature_levels", 4),
        num_points=config.get("num_points", 4),
        num_groups=config["neck_groups"],
        eps=config.get("inverse_sigmoid_eps", 1e-3),
    )
    model.load_state_dict(converted(fixture), strict=True)
    return model.eval()


def converted(fixture: Fixture) -> dict[str, Tensor]:
    """Return the weights under this library's names."""
    if "label_enc.weight" in fixture.weights:
        return convert_detrex(fixture.weights, DINO_WITHOUT_DENOISING, None, "DINO")
    return convert(fixture.weights, num_classes=None)


def encode(model: Parts, fixture: Fixture, features: dict[str, Tensor] | None = None) -> Memory:
    """Return the encoded tokens; check the neck's masks."""
    given = fixture.input
    sizes = [tuple(size) for size in given["image_sizes_hw"].tolist()]
    if features is None:
        features = {name: given[f"feat_{name}"] for name in model.neck.in_features}
    memory = model.neck(features, sizes, tuple(given["padded_size_hw"].tolist()))
    masks = [given[f"mask_lvl{i}"].flatten(1) for i in range(len(memory.shapes))]
    assert torch.equal(memory.padding, torch.cat(masks, dim=1))
    return model.encoder(memory)


def check(preds: Predictions, logits: Tensor, boxes: Tensor) -> None:
    assert_close(preds.logits, logits, atol=3e-4, rtol=0)
    assert_close(preds.boxes, boxes, atol=3e-5, rtol=0)


def check_forward(fixture: Fixture, kind: str) -> None:
    model, expected = build(fixture, kind), fixture.output
    memory = encode(model, fixture)
    sets = model.predict(memory)
    check(sets["main"], expected["pred_logits"], expected["pred_boxes"])
    if "enc_pred_logits" in expected:
        check(sets["enc"], expected["enc_pred_logits"][None], expected["enc_pred_boxes"][None])
    if "inter_states" in expected:
        check_states(model, memory, fixture)


def check_states(model: Parts, memory: Memory, fixture: Fixture) -> None:
    """Check hidden states and the references from which each layer's boxes start."""
    proposals = None if model.proposals is None else model.proposals(memory)
    hidden, references = model.decoder.decode(model.queries(memory, proposals), memory, model.head)
    assert_close(hidden, fixture.output["inter_states"], atol=3e-4, rtol=0)
    start = fixture.output["init_reference"].expand_as(references[0])
    assert_close(references[0], start, atol=3e-5, rtol=0)
    for ours, theirs in zip(references[1:], fixture.output["inter_references"], strict=False):
        assert_close(ours, theirs, atol=3e-5, rtol=0)


@fixtures("deformable_detr", "raw_deformable_detr")
def test_plain(fixture: Fixture) -> None:
    check_forward(fixture, "plain")


@fixtures("deformable_detr_refine")
def test_refine(fixture: Fixture) -> None:
    check_forward(fixture, "refine")


@fixtures("deformable_detr_two_stage", "raw_deformable_detr_two_stage")
def test_two_stage(fixture: Fixture) -> None:
    check_forward(fixture, "two_stage")


@fixtures("dab_deformable_detr")
def test_dab(fixture: Fixture) -> None:
    check_forward(fixture, "dab")


@fixtures("dab_deformable_detr_two_stage")
def test_dab_two_stage(fixture: Fixture) -> None:
    check_forward(fixture, "dab_two_stage")


@fixtures("h_deformable_detr")
def test_hybrid_evaluation(fixture: Fixture) -> None:
    model = build(fixture, "hybrid")
    sets = model.predict(encode(model, fixture))
    assert set(sets) == {"main", "enc"}
    check(sets["main"], fixture.output["pred_logits"], fixture.output["pred_boxes"])


@fixtures("h_deformable_detr")
def test_hybrid_training(fixture: Fixture) -> None:
    model, expected = build(fixture, "hybrid").train(), fixture.output
    memory = encode(model, fixture)
    targets = Targets(labels=torch.zeros(2, 1).long(), boxes=torch.full((2, 1, 4), 0.5), counts=[1, 1])
    sets = model.predict(memory, targets)
    check(sets["main"], expected["train_pred_logits"], expected["train_pred_boxes"])
    check(sets["o2m"], expected["train_one2many_pred_logits"], expected["train_one2many_pred_boxes"])
    check(sets["enc"], expected["enc_pred_logits"][None], expected["enc_pred_boxes"][None])
    references = model.decoder.decode(model.queries(memory, model.proposals(memory), targets), memory, model.head)[1]
    assert_close(references[0], expected["init_reference"], atol=3e-5, rtol=0)
    for ours, theirs in zip(references[1:], expected["inter_references"], strict=False):
        assert_close(ours, theirs, atol=3e-5, rtol=0)


@fixtures("dino")
def test_dino(fixture: Fixture) -> None:
    check_forward(fixture, "dino")


@fixtures("dino")
def test_gradients(fixture: Fixture) -> None:
    model, given = build(fixture, "dino"), fixture.input
    features = {name: given[f"feat_{name}"].clone().requires_grad_() for name in model.neck.in_features}
    sets = model.predict(encode(model, fixture, features))
    total = sum(
        (
            getattr(sets[name], what)[slice(None) if name == "main" else 0] * given[f"cotangent_{prefix}pred_{what}"]
        ).sum()
        for name, prefix in (("main", ""), ("enc", "enc_"))
        for what in ("logits", "boxes")
    )
    total.backward()
    for name, x in features.items():
        expected = fixture.grad[f"feat_{name}"]
        assert_close(x.grad, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    check_parameter_norms(model, fixture)


def check_parameter_norms(model: Parts, fixture: Fixture) -> None:
    """Check the norm of each parameter's gradient; a shared tensor is recorded under its first name, in the decoder."""
    names = [name for name in fixture.meta["param_norm_names"] if name != "label_enc.weight"]
    numbers = {name: torch.full_like(fixture.weights[name], i) for i, name in enumerate(names)}
    heads = ("class_embed.", "bbox_embed.")
    for name in list(numbers):
        short = name.removeprefix("transformer.decoder.")
        if short.startswith(heads):
            numbers[short] = numbers[name]
    named = convert_detrex(numbers, DINO_WITHOUT_DENOISING, None, "DINO")
    recorded = dict(zip(fixture.meta["param_norm_names"], fixture.grad["param_norms"], strict=True))
    ours = dict(model.named_parameters())
    assert set(named) == set(ours) and len(ours) == len(names), "every parameter has a recorded norm"
    norms = torch.stack([ours[key].grad.norm() for key in named])
    expected = torch.stack([recorded[names[int(value.flatten()[0])]] for value in named.values()])
    assert_close(norms, expected, atol=1e-3 * expected.max().item(), rtol=1e-3)
