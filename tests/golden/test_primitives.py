"""Box operations and position encodings against the reference numbers."""

import torch
from torch.testing import assert_close

from align_detr.layers.boxes import (
    box_iou,
    cxcywh_to_xyxy,
    generalized_box_iou,
    pairwise_giou,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from align_detr.layers.positional import LearnedPositionEncoding, SinePositionEncoding
from support.golden import Fixture, fixtures


@fixtures("box_ops*")
def test_box_operations(fixture: Fixture) -> None:
    a, b = cxcywh_to_xyxy(fixture.input["a"]), cxcywh_to_xyxy(fixture.input["b"])
    assert_close(a, fixture.output["a_xyxy"], atol=1e-6, rtol=0)
    assert_close(xyxy_to_cxcywh(a), fixture.output["a_roundtrip"], atol=1e-6, rtol=0)
    assert_close(pairwise_iou(a, b, eps=1e-6), fixture.output["detrex_iou"], atol=1e-5, rtol=0)
    assert_close(pairwise_giou(a, b, eps=1e-6), fixture.output["detrex_giou"], atol=1e-5, rtol=0)
    assert_close(box_iou(a[:, None], b[None])[1], fixture.output["union"], atol=1e-5, rtol=0)


@fixtures("box_ops*")
def test_box_operations_without_epsilon_replace_only_nan(fixture: Fixture) -> None:
    a, b = cxcywh_to_xyxy(fixture.input["a"]), cxcywh_to_xyxy(fixture.input["b"])
    for ours, theirs in [
        (pairwise_iou(a, b), fixture.output["detr_iou"]),
        (pairwise_giou(a, b), fixture.output["detr_giou"]),
    ]:
        assert torch.isfinite(ours).all()
        defined = ~theirs.isnan()
        assert not defined.all(), "the fixture holds 0/0"
        assert_close(ours[defined], theirs[defined], atol=1e-5, rtol=0)


@fixtures("box_ops*")
def test_giou_gradient(fixture: Fixture) -> None:
    for suffix in ("a", "a2"):
        a = fixture.input[f"g{suffix}"].clone().requires_grad_()
        b = fixture.input[f"gb{suffix[1:]}"]
        giou = generalized_box_iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b), eps=1e-6)
        giou.sum().backward()
        assert_close(giou, fixture.output[f"diag_giou{suffix[1:]}"], atol=1e-5, rtol=0)
        expected = fixture.grad[f"g{suffix}"]
        assert_close(a.grad, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)


@fixtures("pos_embed_module*")
def test_position_encodings(fixture: Fixture) -> None:
    mask, features = fixture.input["mask"], fixture.meta["num_pos_feats"]
    assert fixture.meta["variants"]
    for name, options in fixture.meta["variants"].items():
        ours = SinePositionEncoding(num_features=features, **options)(mask)
        expected = fixture.output[name]
        if (
            options.get("offset", 0) < 0
        ):  # a fully padded row is about -3e6 inside the sine there: compare inside the image
            inside = ~mask[:, None].expand_as(expected)
            ours, expected = ours[inside], expected[inside]
        assert_close(ours, expected, atol=1e-5, rtol=0)


@fixtures("pos_embed_module*")
def test_learned_position_encoding(fixture: Fixture) -> None:
    rows, columns = fixture.weights["learned.row_embed.weight"], fixture.weights["learned.col_embed.weight"]
    module = LearnedPositionEncoding(num_features=rows.shape[1], size=rows.shape[0])
    module.load_state_dict({"row_embed.weight": rows, "col_embed.weight": columns})
    assert_close(module(fixture.input["mask"]), fixture.output["learned"], atol=1e-6, rtol=0)
