"""Names of the weights of detrex's single-scale detectors (Conditional-, DAB-, Align-DAB-, DN-, Group-DETR) and here.

| detrex                                               | here                                                |
|------------------------------------------------------|-----------------------------------------------------|
| `backbone.*` (detectron2)                            | the same                                            |
| `input_proj`                                         | `neck.projection`                                   |
| `transformer.encoder.layers.N.attentions.0.attn`     | `encoder.layers.N.self_attn`                        |
| `transformer.decoder.layers.N.attentions.0`, `1`     | `decoder.layers.N.self_attn`, `cross_attn`          |
| `... .*_content_proj`, `*_pos_proj`, `value_proj`    | `... .*_content`, `*_position`, `value`             |
| `... .query_pos_sine_proj`                           | `... .query_sine`                                   |
| `... .ffns.0.layers.0.0`, `layers.1`, `activation`   | `... .ffn.linear1`, `linear2`, `activation`         |
| `... .norms.N`                                       | `... .self_attn_norm`, `cross_attn_norm`, `ffn_norm` |
| `transformer.encoder.query_scale`                    | `encoder.position_scale`                            |
| `transformer.decoder.query_scale`, `ref_anchor_head` | `decoder.query_position.query_scale`, `size`        |
| `... .ref_point_head` (DAB-DETR)                     | `decoder.query_position.position`                   |
| `... .ref_point_head` (Conditional-, Group-DETR)     | `queries.reference`                                 |
| `transformer.decoder.post_norm_layer`                | `decoder.norm`                                      |
| `query_embed`, `anchor_box_embed`                    | `queries.position`, `queries.anchor`                |
| `transformer.patterns`                               | `queries.pattern`                                   |
| `anchor_box_embed` (DN-DETR)                         | `queries.main.anchor`                               |
| `denoising_generator.label_encoder`                  | `queries.label_embed`                               |
| `class_embed`, `bbox_embed`                          | `head.class_embed`, `head.bbox_embed`               |

A tensor that detrex stores under two names (`transformer.decoder.bbox_embed`, the PReLU as `layers.0.1`) has one here.
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename, resnet_depth

# detectron2's ResNet, which has the same names here
DETECTRON2_RESNET_RULES: Rules = [(r"(backbone\.(?:stem|res[2-5])\..+)", r"\1")]

_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER = r"transformer\.decoder\.layers\.(\d+)\."
_EITHER = r"transformer\.(encoder|decoder)\.layers\.(\d+)\."

# feed-forward blocks and norms of detrex's transformer layers, whatever the attentions
LAYER_RULES: Rules = [
    (_EITHER + r"ffns\.0\.layers\.0\.0\.(weight|bias)", r"\1.layers.\2.ffn.linear1.\3"),
    (_EITHER + r"ffns\.0\.layers\.0\.1\.weight", ""),  # a copy of the activation's
    (_EITHER + r"ffns\.0\.activation\.weight", r"\1.layers.\2.ffn.activation.weight"),
    (_EITHER + r"ffns\.0\.layers\.1\.(weight|bias)", r"\1.layers.\2.ffn.linear2.\3"),
    (_EITHER + r"norms\.0\.(weight|bias)", r"\1.layers.\2.self_attn_norm.\3"),
    (_ENCODER + r"norms\.1\.(weight|bias)", r"encoder.layers.\1.ffn_norm.\2"),
    (_DECODER + r"norms\.1\.(weight|bias)", r"decoder.layers.\1.cross_attn_norm.\2"),
    (_DECODER + r"norms\.2\.(weight|bias)", r"decoder.layers.\1.ffn_norm.\2"),
]

_ATTENTION_RULES: Rules = [
    (_ENCODER + r"attentions\.0\.attn\.(.+)", r"encoder.layers.\1.self_attn.\2"),
    *[
        (_DECODER + rf"attentions\.{i}\.{old}\.(weight|bias)", rf"decoder.layers.\1.{name}.{new}.\2")
        for i, name in enumerate(("self_attn", "cross_attn"))
        for old, new in [
            ("query_content_proj", "query_content"),
            ("query_pos_proj", "query_position"),
            ("query_pos_sine_proj", "query_sine"),
            ("key_content_proj", "key_content"),
            ("key_pos_proj", "key_position"),
            ("value_proj", "value"),
            ("out_proj", "out_proj"),
        ]
    ],
]

_SINGLE_SCALE_RULES: Rules = [
    *DETECTRON2_RESNET_RULES,
    (r"input_proj\.(weight|bias)", r"neck.projection.\1"),
    *LAYER_RULES,
    *_ATTENTION_RULES,
    (r"transformer\.decoder\.query_scale\.(.+)", r"decoder.query_position.query_scale.\1"),
    (r"transformer\.decoder\.post_norm_layer\.(weight|bias)", r"decoder.norm.\1"),
    (r"(class_embed|bbox_embed)\.(.+)", r"head.\1.\2"),
]

_CONDITIONAL_RULES: Rules = [
    *_SINGLE_SCALE_RULES,
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"queries.reference.\1"),
    (r"query_embed\.weight", "queries.position.weight"),
]

_DAB_RULES: Rules = [
    *_SINGLE_SCALE_RULES,
    (r"transformer\.encoder\.query_scale\.(.+)", r"encoder.position_scale.\1"),
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"decoder.query_position.position.\1"),
    (r"transformer\.decoder\.ref_anchor_head\.(.+)", r"decoder.query_position.size.\1"),
    (r"transformer\.decoder\.bbox_embed\..+", ""),  # a copy of the head's
    (r"transformer\.patterns\.weight", "queries.pattern.weight"),
    (r"anchor_box_embed\.weight", "queries.anchor.weight"),
]

_DN_RULES: Rules = [
    (r"denoising_generator\.label_encoder\.weight", "queries.label_embed.weight"),
    (r"anchor_box_embed\.weight", "queries.main.anchor.weight"),
    *_DAB_RULES,
]

_CONDITIONAL_KEY = "transformer.decoder.layers.0.attentions.1.query_pos_sine_proj.weight"


def is_detrex_conditional_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of detrex's Conditional-DETR or Group-DETR."""
    return _CONDITIONAL_KEY in state and "query_embed.weight" in state


def is_detrex_dab_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of detrex's DAB-DETR, or of Align-DAB-DETR, which is built on it."""
    return _CONDITIONAL_KEY in state and "anchor_box_embed.weight" in state and not is_detrex_dn_detr(state)


def is_detrex_dn_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of detrex's DN-DETR."""
    return _CONDITIONAL_KEY in state and "denoising_generator.label_encoder.weight" in state


def convert_detrex_conditional_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key."""
    return rename(state, _CONDITIONAL_RULES, "detrex Conditional-DETR")


def convert_detrex_dab_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key."""
    return rename(state, _DAB_RULES, "detrex DAB-DETR")


def convert_detrex_dn_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key."""
    return rename(state, _DN_RULES, "detrex DN-DETR")


def conditional_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of detrex's Conditional-DETR, or of Group-DETR, which has 300 queries per group."""
    name = "group_detr" if state["query_embed.weight"].shape[0] > 300 else "conditional_detr"
    return f"{name}/{name}_{resnet_depth(state)}_50ep.py"


def dab_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of detrex's DAB-DETR; Align-DAB-DETR has the same tensors."""
    patterns = "_3patterns" if "transformer.patterns.weight" in state else ""
    return f"dab_detr/dab_detr_{resnet_depth(state)}{patterns}_50ep.py"


def dn_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of detrex's DN-DETR."""
    return f"dn_detr/dn_detr_{resnet_depth(state)}_50ep.py"
