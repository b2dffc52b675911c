"""DINO against the recorded network: evaluation with gradients, and whole training steps, plain and aligned, with the
recorded noise.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.inference.optimized.fused import Kernels
from align_detr.inference.optimized.parts import LastLayerDecoder
from align_detr.inference.optimized.replacing import Replacements
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.queries import ContrastiveDenoisingQueries
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import Memory, Predictions
from support.compiling import compiled
from support.deformable import Parts, build_parts
from support.draws import recorded_draws, replay
from support.golden import Fixture, fixtures, load
from support.paths import GOLDEN


def build(fixture: Fixture, **noise: float) -> Parts:
    """Build the parts in the fixture's sizes, load its weights, and add DINO's denoising."""
    config = fixture.meta["config"]
    model = build_parts(
        "dino",
        in_channels={f"res{i}": fixture.input[f"feat_res{i}"].shape[1] for i in (3, 4, 5)},
        embed_dim=config["embed_dim"],
        num_heads=config["num_heads"],
        ffn_dim=config["feedforward_dim"],
        enc_layers=config["enc_layers"],
        dec_layers=config["dec_layers"],
        num_queries=config["num_queries"],
        num_classes=config["num_classes"],
        num_levels=config["num_feature_levels"],
        num_points=config["num_points"],
        num_groups=config["neck_groups"],
    )
    model.queries = ContrastiveDenoisingQueries(
        main=model.queries, num_classes=config["num_classes"], embed_dim=config["embed_dim"], **noise
    )
    model.load_state_dict(convert(fixture.weights, num_classes=None), strict=True)
    return model.eval()


def features_of(fixture: Fixture) -> dict[str, Tensor]:
    """Return the recorded backbone maps, which require gradients."""
    return {f"res{i}": fixture.input[f"feat_res{i}"].clone().requires_grad_() for i in (3, 4, 5)}


def encode(model: Parts, fixture: Fixture, features: Mapping[str, Tensor]) -> Memory:
    return model.encoder(fixture.tokens(model.neck, features))


def check(preds: Predictions, fixture: Fixture, prefix: str = "") -> None:
    """Check logits within 3e-4 and boxes within 3e-5."""
    logits, boxes = fixture.output[f"{prefix}pred_logits"], fixture.output[f"{prefix}pred_boxes"]
    assert_close(preds.logits, logits.view_as(preds.logits), atol=3e-4, rtol=0)
    assert_close(preds.boxes, boxes.view_as(preds.boxes), atol=3e-5, rtol=0)


def check_gradients(
    model: Parts, features: Mapping[str, Tensor], fixture: Fixture, weights: Mapping[str, Tensor]
) -> None:
    """Check the maps' gradients and the norm of every parameter's gradient within 1e-3 of the largest."""
    for name, feature in features.items():
        expected = fixture.grad[f"feat_{name}"]
        assert_close(feature.grad, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    ours = dict(model.named_parameters())
    name_of = {}
    for name, value in convert(weights, num_classes=None).items():
        name_of.setdefault(value.data_ptr(), name)
    names = [name_of[weights[name].data_ptr()] for name in _one_name_each(fixture, weights)]
    without = {name_of[weights[name].data_ptr()] for name in fixture.meta.get("params_without_gradient", [])}
    assert sorted([*names, *without]) == sorted(ours), "every parameter has a recorded norm, or none"
    norms = torch.stack([ours[name].grad.norm() for name in names])
    expected = fixture.grad["param_norms"]
    assert_close(norms, expected, atol=1e-3 * expected.max().item(), rtol=1e-3)


def _one_name_each(fixture: Fixture, weights: Mapping[str, Tensor]) -> list[str]:
    """Return the recorded names; those of the heads under the name that the key map keeps."""
    return [
        name.replace("transformer.decoder.class_embed", "class_embed").replace(
            "transformer.decoder.bbox_embed", "bbox_embed"
        )
        for name in fixture.meta["param_norm_names"]
    ]


@fixtures("dino*", having=["weights/"])
def test_forward(fixture: Fixture) -> None:
    model = build(fixture)
    memory = encode(model, fixture, features_of(fixture))
    sets = model.predict(memory)
    assert set(sets) == {"main", "enc"}
    check(sets["main"], fixture)
    check(sets["enc"], fixture, "enc_")
    proposals = model.proposals(memory)
    hidden, references = model.decoder.decode(model.queries(memory, proposals), memory, model.head)
    assert_close(hidden, fixture.output["inter_states"], atol=3e-4, rtol=0)
    assert_close(references[0], fixture.output["init_reference"], atol=3e-5, rtol=0)
    # the file's last one is what a further layer would start from
    assert_close(torch.stack(references[1:]), fixture.output["inter_references"][:-1], atol=3e-5, rtol=0)


@fixtures("dino*", having=["weights/"])
def test_compiled_forward(fixture: Fixture) -> None:
    """Encoder, proposals, queries, decoder and head as one compiled graph give what is recorded."""
    model = build(fixture)

    def predict(memory: Memory) -> dict[str, Predictions]:
        return model.predict(model.encoder(memory))

    with torch.no_grad():
        sets = compiled(predict)(fixture.tokens(model.neck, features_of(fixture)))
    check(sets["main"], fixture)
    check(sets["enc"], fixture, "enc_")


@fixtures("dino*", having=["weights/"])
def test_optimized_forward(fixture: Fixture) -> None:
    """The parts that `optimize_for_inference` puts in their places predict what is recorded."""
    model = build(fixture)
    Replacements(Kernels(torch.device("cpu"), torch.float32)).apply(model)
    model.decoder = LastLayerDecoder(model.decoder, model.head)
    with torch.inference_mode():
        for _ in ("new sizes", "kept ones"):
            preds = model.predict(encode(model, fixture, features_of(fixture)))["main"]
            logits, boxes = fixture.output["pred_logits"][-1:], fixture.output["pred_boxes"][-1:]
            assert_close(preds.logits, logits.view_as(preds.logits), atol=3e-4, rtol=0)
            assert_close(preds.boxes, boxes.view_as(preds.boxes), atol=3e-5, rtol=0)


@fixtures("dino*", having=["weights/", "grad/"])
def test_gradients(fixture: Fixture) -> None:
    model, features, given = build(fixture), features_of(fixture), fixture.input
    sets = model.predict(encode(model, fixture, features))
    total = sum(
        (values * given[f"cotangent_{prefix}pred_{kind}"].view_as(values)).sum()
        for prefix, preds in (("", sets["main"]), ("enc_", sets["enc"]))
        for kind, values in (("logits", preds.logits), ("boxes", preds.boxes))
    )
    # in training, the table of denoising labels has a gradient of zero where it is not used
    (total + 0 * model.queries.label_embed.weight.sum()).backward()
    check_gradients(model, features, fixture, fixture.weights)


def criterion(fixture: Fixture) -> SetCriterion:
    """Build DINO's criterion, or Align-DINO's if the fixture counts copies."""
    weights, config = fixture.meta["weight_dict"], fixture.meta["config"]
    copies = config.get("match_num", config.get("match_number"))
    common = dict(weight=weights["loss_class"], alpha=config.get("alpha", 0.25), gamma=config.get("gamma", 2.0))
    return SetCriterion(
        matcher=HungarianMatcher(
            costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)],
            copies={"enc": copies[0], "main": copies[1:]} if copies else None,
        ),
        losses=[
            IABCELoss(**common) if copies else SigmoidFocalLoss(**common),
            L1Loss(weight=weights["loss_bbox"]),
            GIoULoss(weight=weights["loss_giou"], eps=1e-6),
        ],
        weighting=PrimeSampleWeighting(alpha=config["alpha"], tau=config["tau"]) if copies else None,
    )


@fixtures("dino*", "align_dino*", lacking=["weights/"])
def test_training_step(fixture: Fixture) -> None:
    """Predictions of all sets, weighted losses, their total and its gradients equal the recorded ones."""
    recorded, config = load(GOLDEN / fixture.meta["weights_from"]), fixture.meta["config"]
    noise = config.get("label_noise_ratio", 0.5)
    model = build(
        recorded, dn_number=config.get("dn_number", 6), label_noise=noise, box_noise=config.get("box_noise_scale", 1.0)
    )
    replay(model.queries, recorded_draws(fixture, noise / 2))
    features, targets = features_of(recorded), fixture.targets()
    sets = model.predict(encode(model, recorded, features), targets)
    check(sets["main"], fixture)
    check(sets["dn"], fixture, "dn_")
    check(sets["enc"], fixture, "enc_")

    losses, weights = criterion(fixture)(sets, targets), fixture.meta["weight_dict"]
    expected = {
        name: value * weights["_".join(name.split("_")[:2])] for name, value in fixture.loss.items() if name != "total"
    }
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_close(value, expected[name].reshape(()), rtol=2e-5, atol=0, msg=name)
    total = sum(losses.values())
    assert_close(total, fixture.loss["total"].reshape(()), rtol=2e-5, atol=0)
    total.backward()
    check_gradients(model, features, fixture, recorded.weights)
