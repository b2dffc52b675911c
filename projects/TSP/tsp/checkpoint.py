"""Weights of the official code (Edward-Sun/TSP-Detection) under this project's names. None were published.

TSP-FCOS:

| official                                          | here                                              |
|---------------------------------------------------|---------------------------------------------------|
| `backbone.bottom_up.*`, `backbone.fpn_*`          | the same                                          |
| `backbone.top_block.pN.conv`, `.bn`               | `backbone.top_block.pN`, `.norm`                  |
| `fcos_head.cls_tower`, `bbox_tower`, `cls_logits` | `points.class_tower`, `box_tower`, `class_embed`  |
| `enc_proj`, `post_enc_proj_norm`                  | `encoding.projection`, `norm`                     |
| `pyramid_position_embedding`                      | `encoding.level_embed`                            |
| `transformer_encoder.*`                           | `encoder.*`, see `encoder_rules`                  |
| `cls_logits`, `bbox_pred`, `ctrness`, `scales`    | `head.class_embed`, `bbox_embed`, `centerness`, `scales` |

TSP-RCNN:

| official                                         | here                                                            |
|--------------------------------------------------|-----------------------------------------------------------------|
| `backbone.*`                                     | see `backbone_rules`                                            |
| `proposal_generator.rpn_head.{obj,anchor}_conv.I.conv` | `... .{objectness,delta}_tower.convs.I`                   |
| `... .{obj,anchor}_bn_list.LEVEL.I`              | `... .{objectness,delta}_tower.norms.LEVEL.I`                   |
| `roi_heads.box_head.input_proj`                  | `roi_heads.stages.0.transformer.projection`                     |
| `... .dec_pos_embed_proj`, `post_input_proj_norm` | `... .position_projection`, `norm`                             |
| `... .transformer_encoder.*`                     | `... .encoder.*`, see `encoder_rules`                           |
| `roi_heads.box_predictor.cls_score`, `bbox_pred` | `roi_heads.stages.0.classifier.linear`, `boxes.mlp`             |

With iterative refinement `box_head.K` and `box_predictor.K` become `stages.K`. Pixel means and anchors are constants
and left out.
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename


def backbone_rules() -> Rules:
    """Return the rules for ResNet, FPN and its two extra levels, of TSP-FCOS and TSP-RCNN."""
    return [
        (r"(backbone\.bottom_up\..+)", r"\1"),
        (r"(backbone\.fpn_(lateral|output)\d\..+)", r"\1"),
        (r"backbone\.top_block\.(p[67])\.conv\.(.+)", r"backbone.top_block.\1.\2"),
        (r"backbone\.top_block\.(p[67])\.bn\.(.+)", r"backbone.top_block.\1.norm.\2"),
        (r"pixel_(mean|std)", ""),  # BGR there; here the config has them, in RGB
    ]


def encoder_rules(official: str, ours: str) -> Rules:
    """Return the rules for the encoder whose keys begin with `official`, a regular expression without groups.

    `ours` is what the keys begin with here.
    """
    layer = rf"{official}layers\.(\d+)\."
    return [
        (layer + r"self_attn\.(.+)", rf"{ours}layers.\1.self_attn.\2"),
        (layer + r"(linear[12])\.(.+)", rf"{ours}layers.\1.ffn.\2.\3"),
        (layer + r"norm1\.(.+)", rf"{ours}layers.\1.self_attn_norm.\2"),
        (layer + r"norm2\.(.+)", rf"{ours}layers.\1.ffn_norm.\2"),
        (rf"{official}norm\.(.+)", rf"{ours}norm.\1"),
    ]


_FCOS_RULES = [
    *backbone_rules(),
    *encoder_rules(r"transformer_encoder\.", "encoder."),
    (r"fcos_head\.cls_tower\.(.+)", r"points.class_tower.\1"),
    (r"fcos_head\.bbox_tower\.(.+)", r"points.box_tower.\1"),
    (r"fcos_head\.cls_logits\.(.+)", r"points.class_embed.\1"),
    (r"enc_proj\.(.+)", r"encoding.projection.\1"),
    (r"post_enc_proj_norm\.(.+)", r"encoding.norm.\1"),
    (r"pyramid_position_embedding", "encoding.level_embed"),
    (r"cls_logits\.(.+)", r"head.class_embed.\1"),
    (r"bbox_pred\.(.+)", r"head.bbox_embed.\1"),
    (r"ctrness\.(.+)", r"head.centerness.\1"),
    (r"scales", "head.scales"),
]


def is_official_tsp_fcos(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the official TSP-FCOS."""
    return "pyramid_position_embedding" in state and "fcos_head.cls_logits.weight" in state


def is_official_tsp_rcnn(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the official TSP-RCNN, with or without iterative refinement."""
    return any(key.startswith("roi_heads.box_head.") and "dec_pos_embed_proj" in key for key in state)


def convert_official_tsp_fcos(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the official entries under this project's names; raise ConfigError for a key that is not TSP-FCOS's."""
    return rename(state, _FCOS_RULES, "TSP-FCOS")


_RPN = r"proposal_generator\.rpn_head\."
_STAGES = {"": 0, **{rf"{k}\.": k for k in range(4)}}  # official prefix -> stage; a single stage has no prefix


def _stage_rules(official: str, stage: int) -> Rules:
    """Return the rules for the region head and the predictors of one stage."""
    head, predictor = rf"roi_heads\.box_head\.{official}", rf"roi_heads\.box_predictor\.{official}"
    ours = f"roi_heads.stages.{stage}."
    return [
        (head + r"input_proj\.(.+)", rf"{ours}transformer.projection.\1"),
        (head + r"dec_pos_embed_proj\.(.+)", rf"{ours}transformer.position_projection.\1"),
        (head + r"post_input_proj_norm\.(.+)", rf"{ours}transformer.norm.\1"),
        *encoder_rules(head + r"transformer_encoder\.", f"{ours}transformer.encoder."),
        (predictor + r"cls_score\.(.+)", rf"{ours}classifier.linear.\1"),
        (predictor + r"bbox_pred\.(.+)", rf"{ours}boxes.mlp.\1"),
    ]


def _tower_rules(official: str, ours: str) -> Rules:
    """Return the rules for one tower of the proposal head."""
    tower = f"proposal_generator.rpn_head.{ours}_tower."
    return [
        (rf"{_RPN}{official}_conv\.(\d+)\.conv\.(.+)", rf"{tower}convs.\1.\2"),
        (rf"{_RPN}{official}_bn_list\.(.+)", rf"{tower}norms.\1"),
    ]


_RCNN_RULES: Rules = [
    *backbone_rules(),
    *_tower_rules("obj", "objectness"),
    *_tower_rules("anchor", "delta"),
    (rf"({_RPN}(?:objectness_logits|anchor_deltas)\..+)", r"\1"),
    *(rule for official, stage in _STAGES.items() for rule in _stage_rules(official, stage)),
    (r"proposal_generator\.anchor_generator\..+", ""),  # constants
]


def convert_official_tsp_rcnn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the official entries under this project's names; raise ConfigError for a key that is not TSP-RCNN's."""
    return rename(state, _RCNN_RULES, "TSP-RCNN")
