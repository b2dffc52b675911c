"""Weights of the authors' Conditional-, DAB- and DN-DETR, and of other authors' files.

The lists of keys are built here from what the modules of the repositories Atten4Vis/ConditionalDETR, IDEA-Research/
DAB-DETR and IDEA-Research/DN-DETR register (models/*/transformer.py and the detector beside it, torchvision's ResNet
under `backbone.0.body`), in the order and nesting of those modules. No file of the authors was at hand.
"""

from itertools import pairwise

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from align_detr.errors import ConfigError
from align_detr.projects.anchor_detr.checkpoint import convert_anchor_detr

Shapes = dict[str, tuple[int, ...]]
C, FFN, QUERIES, CLASSES = 256, 2048, 300, 91


def linear(name: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (C,), f"{name}.bias": (C,)}


def mlp(name: str, *sizes: int) -> Shapes:
    return {k: v for i, (a, b) in enumerate(pairwise(sizes)) for k, v in linear(f"{name}.layers.{i}", b, a).items()}


def resnet50(prefix: str) -> Shapes:
    def conv_bn(conv: str, bn: str, out: int, inputs: int, kernel: int) -> Shapes:
        statistics = ("weight", "bias", "running_mean", "running_var")
        return {f"{conv}.weight": (out, inputs, kernel, kernel), **{f"{bn}.{x}": (out,) for x in statistics}}

    shapes, inputs = conv_bn("conv1", "bn1", 64, 3, 7), 64
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**stage
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            shapes |= conv_bn(f"{at}.conv1", f"{at}.bn1", width, inputs, 1)
            shapes |= conv_bn(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            shapes |= conv_bn(f"{at}.conv3", f"{at}.bn3", 4 * width, width, 1)
            if block == 0:
                shapes |= conv_bn(f"{at}.downsample.0", f"{at}.downsample.1", 4 * width, inputs, 1)
            inputs = 4 * width
    return {prefix + key: shape for key, shape in shapes.items()}


def authors(*, dab: bool = False, dn: bool = False, patterns: int = 0) -> Shapes:
    """Return the state dict's shapes of the authors' R50 model."""
    shapes: Shapes = {}
    for n in range(6):
        at = f"transformer.encoder.layers.{n}"
        shapes |= {f"{at}.self_attn.in_proj_weight": (3 * C, C), f"{at}.self_attn.in_proj_bias": (3 * C,)}
        shapes |= linear(f"{at}.self_attn.out_proj", C, C) | linear(f"{at}.linear1", FFN, C)
        shapes |= linear(f"{at}.linear2", C, FFN) | norm(f"{at}.norm1") | norm(f"{at}.norm2")
        shapes |= {f"{at}.activation.weight": (1,)} if dab else {}
    shapes |= mlp("transformer.encoder.query_scale", C, C, C) if dab else {}
    for n in range(6):
        at = f"transformer.decoder.layers.{n}"
        projections = [f"sa_{x}_proj" for x in ("qcontent", "qpos", "kcontent", "kpos", "v")]
        projections += [f"ca_{x}_proj" for x in ("qcontent", "qpos", "kcontent", "kpos", "v", "qpos_sine")]
        projections += ["self_attn.out_proj", "cross_attn.out_proj"]
        for name in projections:
            if n == 0 or name != "ca_qpos_proj":  # None after the first layer
                shapes |= linear(f"{at}.{name}", C, C)
        shapes |= linear(f"{at}.linear1", FFN, C) | linear(f"{at}.linear2", C, FFN)
        shapes |= norm(f"{at}.norm1") | norm(f"{at}.norm2") | norm(f"{at}.norm3")
        shapes |= {f"{at}.activation.weight": (1,)} if dab else {}
    shapes |= norm("transformer.decoder.norm") | mlp("transformer.decoder.query_scale", C, C, C)
    if dab:
        shapes |= mlp("transformer.decoder.ref_point_head", 2 * C, C, C)
        shapes |= mlp("transformer.decoder.ref_anchor_head", C, C, 2) | mlp(
            "transformer.decoder.bbox_embed", C, C, C, 4
        )
        shapes |= {"refpoint_embed.weight": (QUERIES, 4)}
    else:
        shapes |= mlp("transformer.decoder.ref_point_head", C, C, 2) | {"query_embed.weight": (QUERIES, C)}
    shapes |= {"label_enc.weight": (CLASSES + 1, C - 1)} if dn else {}
    shapes |= {"transformer.patterns.weight": (patterns, C)} if patterns else {}
    shapes |= linear("class_embed", CLASSES, C) | mlp("bbox_embed", C, C, C, 4)
    shapes |= {"input_proj.weight": (C, 2048, 1, 1), "input_proj.bias": (C,)}
    return shapes | resnet50("backbone.0.body.")


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors that take no memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


CASES = [
    ("conditional_detr/conditional_detr_r50_official.py", authors(), 0),
    ("dab_detr/dab_detr_r50_50ep.py", authors(dab=True), 6),
    ("dab_detr/dab_detr_r50_3patterns_50ep.py", authors(dab=True, patterns=3), 6),
    ("dn_detr/dn_detr_r50_50ep.py", authors(dab=True, dn=True), 6),
]


@pytest.mark.parametrize(("config", "shapes", "copies"), CASES, ids=[config for config, *_ in CASES])
def test_every_entry_has_its_place(config: str, shapes: Shapes, copies: int) -> None:
    """With COCO's 91 ids and with the 80 that it uses; only the second copy of the box head is dropped."""
    for num_classes in (91, 80):
        node = model_zoo.get_config(config).model
        node.head.num_classes = num_classes
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in instantiate(node).state_dict().items()}
        converted = convert(tensors(shapes), num_classes=num_classes)
        assert {key: tuple(value.shape) for key, value in converted.items()} == expected
        assert len(converted) == len(shapes) - copies


def test_numbers_go_where_the_authors_use_them() -> None:
    """Each tensor of the fourth decoder layer and its like, by a table written by hand from the forward passes."""
    state = tensors(authors(dab=True, dn=True))
    at, ours = "transformer.decoder.layers.3.", "decoder.layers.3."
    table = {
        f"{at}norm1.bias": f"{ours}self_attn_norm.bias",
        f"{at}norm2.bias": f"{ours}cross_attn_norm.bias",
        f"{at}norm3.bias": f"{ours}ffn_norm.bias",
        f"{at}sa_qcontent_proj.bias": f"{ours}self_attn.query_content.bias",
        f"{at}sa_qpos_proj.bias": f"{ours}self_attn.query_position.bias",
        f"{at}sa_kcontent_proj.bias": f"{ours}self_attn.key_content.bias",
        f"{at}sa_kpos_proj.bias": f"{ours}self_attn.key_position.bias",
        f"{at}sa_v_proj.bias": f"{ours}self_attn.value.bias",
        f"{at}self_attn.out_proj.bias": f"{ours}self_attn.out_proj.bias",
        f"{at}ca_qcontent_proj.bias": f"{ours}cross_attn.query_content.bias",
        f"{at}ca_qpos_sine_proj.bias": f"{ours}cross_attn.query_sine.bias",
        f"{at}ca_kcontent_proj.bias": f"{ours}cross_attn.key_content.bias",
        f"{at}ca_kpos_proj.bias": f"{ours}cross_attn.key_position.bias",
        f"{at}ca_v_proj.bias": f"{ours}cross_attn.value.bias",
        f"{at}cross_attn.out_proj.bias": f"{ours}cross_attn.out_proj.bias",
        "transformer.decoder.layers.0.ca_qpos_proj.bias": "decoder.layers.0.cross_attn.query_position.bias",
        "transformer.encoder.layers.3.norm1.bias": "encoder.layers.3.self_attn_norm.bias",
        "transformer.encoder.layers.3.norm2.bias": "encoder.layers.3.ffn_norm.bias",
        "transformer.encoder.query_scale.layers.1.bias": "encoder.position_scale.layers.1.bias",
        "transformer.decoder.query_scale.layers.1.bias": "decoder.query_position.query_scale.layers.1.bias",
        "transformer.decoder.ref_point_head.layers.1.bias": "decoder.query_position.position.layers.1.bias",
    }
    converted = convert(state, num_classes=None)
    assert all(converted[new] is state[old] for old, new in table.items())
    conditional = tensors(authors())
    reference = convert(conditional, num_classes=None)["queries.reference.layers.0.bias"]
    assert reference is conditional["transformer.decoder.ref_point_head.layers.0.bias"]


def test_rows_of_classes() -> None:
    """Row 79 is id 90 (toothbrush), row 11 id 13 (stop sign, after the unused 12), the last label is "unknown"."""
    state = tensors(authors(dab=True, dn=True))
    state["class_embed.bias"], state["label_enc.weight"] = torch.arange(91), torch.arange(92)[:, None].expand(92, 255)
    converted = convert(state, num_classes=80)
    assert converted["head.class_embed.bias"][[0, 10, 11, 79]].tolist() == [1, 11, 13, 90]
    assert converted["queries.label_embed.weight"][[0, 11, 79, 80], 0].tolist() == [1, 13, 90, 91]
    assert convert(state, num_classes=7)["head.class_embed.bias"].shape == (91,)


def test_another_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="'mask_head.lay1.weight' is not one of DAB-DETR's"):
        convert({**tensors(authors(dab=True)), "mask_head.lay1.weight": torch.zeros(1)}, num_classes=80)


def test_settings_of_the_authors() -> None:
    """Of Conditional-DETR, in which detrex differs."""
    for name in ("r50", "r50_dc5", "r101", "r101_dc5"):
        model = model_zoo.get_config(f"conditional_detr/conditional_detr_{name}_official.py").model
        assert (model.head.eps, model.postprocess.num_detections, model.backbone.freeze_at) == (1e-5, 100, 2)
        assert model.criterion.matcher.costs[2].eps == model.criterion.losses[2].eps == 0
        assert model.backbone.depth == (101 if "101" in name else 50)
        assert model.backbone.get("res5_dilation", 1) == (2 if "dc5" in name else 1)


def test_the_authors_anchor_detr_names() -> None:
    """Their `input_proj` is a list of sequences, detrex's a sequence."""
    state = {
        "transformer.decoder_layers.0.cross_attn.in_proj_weight": torch.empty(5 * C, C, device="meta"),
        "transformer.pattern.weight": torch.empty(3, C, device="meta"),
        "input_proj.0.0.weight": torch.empty(C, 2048, 1, 1, device="meta"),
        "input_proj.0.1.bias": torch.empty(C, device="meta"),
        **{
            f"transformer.{x}": torch.empty(CLASSES, device="meta")
            for x in ("class_embed.0.weight", "class_embed.0.bias")
        },
    }
    converted = convert_anchor_detr(state, num_classes=80)
    assert converted["neck.projection.weight"].shape == (C, 2048, 1, 1) and "neck.norm.bias" in converted
