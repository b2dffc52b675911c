"""Names of the authors' Conditional-DETR, DAB-DETR and DN-DETR weights (their own repositories), and here.

| authors                                                       | here                                            |
|---------------------------------------------------------------|-------------------------------------------------|
| `backbone.0.body.*` (torchvision)                             | `backbone.*` (detectron2)                       |
| `input_proj`                                                  | `neck.projection`                               |
| `transformer.encoder.layers.N.self_attn`                      | `encoder.layers.N.self_attn`                    |
| `transformer.decoder.layers.N.sa_*_proj`, `self_attn.out_proj` | `decoder.layers.N.self_attn.*`                 |
| `... .ca_*_proj`, `cross_attn.out_proj`                       | `... .cross_attn.*`                             |
| `... .linear1`, `linear2`, `activation` (PReLU)               | `... .ffn.linear1`, `linear2`, `activation`     |
| `... .norm1`, `norm2` (encoder)                               | `... .self_attn_norm`, `ffn_norm`               |
| `... .norm1`, `norm2`, `norm3` (decoder)                      | `... .self_attn_norm`, `cross_attn_norm`, `ffn_norm` |
| `transformer.decoder.norm`                                    | `decoder.norm`                                  |
| `transformer.encoder.query_scale`                             | `encoder.position_scale`                        |
| `transformer.decoder.query_scale`, `ref_anchor_head`          | `decoder.query_position.query_scale`, `size`    |
| `... .ref_point_head` (Conditional-DETR)                      | `queries.reference`                             |
| `... .ref_point_head` (DAB-, DN-DETR)                         | `decoder.query_position.position`               |
| `query_embed`, `refpoint_embed`, `transformer.patterns`       | `queries.position`, `anchor`, `pattern`         |
| `refpoint_embed`, `label_enc` (DN-DETR)                       | `queries.main.anchor`, `queries.label_embed`    |
| `class_embed`, `bbox_embed`                                   | `head.class_embed`, `head.bbox_embed`           |

`transformer.decoder.bbox_embed` repeats the head's. Classifier and label table have one row per COCO id 0 to 90, the
table one more for "unknown"; a model of 80 classes gets the rows of COCO's 80 ids.

The names are those that the repositories' modules give to their parameters. No file of the authors was at hand: that a
release holds exactly these entries, and under the key "model", is not checked.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.detr import coco_category_ids, select_class_rows
from align_detr.checkpoint.key_map import Rules, rename, resnet_depth, torchvision_resnet_rules

_EITHER = r"transformer\.(encoder|decoder)\.layers\.(\d+)\."
_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER = r"transformer\.decoder\.layers\.(\d+)\."
_LEAF = r"\.(weight|bias)"

_ATTENTION_RULES: Rules = [
    (_ENCODER + r"self_attn\.(.+)", r"encoder.layers.\1.self_attn.\2"),
    *[
        (_DECODER + rf"{prefix}_{old}_proj{_LEAF}", rf"decoder.layers.\1.{attention}.{new}.\2")
        for prefix, attention in [("sa", "self_attn"), ("ca", "cross_attn")]
        for old, new in [
            ("qcontent", "query_content"),
            ("qpos", "query_position"),
            ("qpos_sine", "query_sine"),
            ("kcontent", "key_content"),
            ("kpos", "key_position"),
            ("v", "value"),
        ]
    ],
    (_DECODER + r"(self|cross)_attn\.out_proj" + _LEAF, r"decoder.layers.\1.\2_attn.out_proj.\3"),
]

_RULES: Rules = [
    *torchvision_resnet_rules(r"backbone\.0\.body\."),
    (r"input_proj" + _LEAF, r"neck.projection.\1"),
    *_ATTENTION_RULES,
    (_EITHER + r"(linear[12])" + _LEAF, r"\1.layers.\2.ffn.\3.\4"),
    (_EITHER + r"activation\.weight", r"\1.layers.\2.ffn.activation.weight"),
    (_EITHER + r"norm1" + _LEAF, r"\1.layers.\2.self_attn_norm.\3"),
    (_ENCODER + r"norm2" + _LEAF, r"encoder.layers.\1.ffn_norm.\2"),
    (_DECODER + r"norm2" + _LEAF, r"decoder.layers.\1.cross_attn_norm.\2"),
    (_DECODER + r"norm3" + _LEAF, r"decoder.layers.\1.ffn_norm.\2"),
    (r"transformer\.decoder\.norm" + _LEAF, r"decoder.norm.\1"),
    (r"transformer\.encoder\.query_scale\.(.+)", r"encoder.position_scale.\1"),
    (r"transformer\.decoder\.query_scale\.(.+)", r"decoder.query_position.query_scale.\1"),
    (r"transformer\.decoder\.ref_anchor_head\.(.+)", r"decoder.query_position.size.\1"),
    (r"transformer\.decoder\.bbox_embed\..+", ""),  # a copy of the head's
    (r"transformer\.patterns\.weight", "queries.pattern.weight"),
    (r"(class_embed|bbox_embed)\.(.+)", r"head.\1.\2"),
]
_REFERENCE = r"transformer\.decoder\.ref_point_head\.(.+)"
_CONDITIONAL_RULES: Rules = [
    (_REFERENCE, r"queries.reference.\1"),
    (r"query_embed\.weight", "queries.position.weight"),
    *_RULES,
]
_DAB_RULES: Rules = [
    (_REFERENCE, r"decoder.query_position.position.\1"),
    (r"refpoint_embed\.weight", "queries.anchor.weight"),
    *_RULES,
]
_DN_RULES: Rules = [
    (r"refpoint_embed\.weight", "queries.main.anchor.weight"),
    (r"label_enc\.weight", "queries.label_embed.weight"),
    *_DAB_RULES,
]


def is_official_conditional(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the authors' Conditional-, DAB- or DN-DETR."""
    return "transformer.decoder.layers.0.ca_qpos_sine_proj.weight" in state


def official_conditional_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of the authors' model; its form with DC5 has the same tensors."""
    depth = resnet_depth(state)
    if "refpoint_embed.weight" not in state:
        return f"conditional_detr/conditional_detr_{depth}_official.py"
    if "label_enc.weight" in state:
        return f"dn_detr/dn_detr_{depth}_50ep.py"
    patterns = "_3patterns" if "transformer.patterns.weight" in state else ""
    return f"dab_detr/dab_detr_{depth}{patterns}_50ep.py"


def convert_official_conditional(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key.

    A model of 80 classes gets COCO's 80 rows out of 91.
    """
    rules, source = _CONDITIONAL_RULES, "Conditional-DETR"
    if "refpoint_embed.weight" in state:
        rules, source = (_DN_RULES, "DN-DETR") if "label_enc.weight" in state else (_DAB_RULES, "DAB-DETR")
    converted = rename(state, rules, source)
    for key in ("head.class_embed.weight", "head.class_embed.bias"):
        if key in converted and (converted[key].shape[0], num_classes) == (91, 80):
            converted[key] = converted[key][torch.tensor(coco_category_ids())]
    labels = "queries.label_embed.weight"
    if labels in converted:
        converted[labels] = select_class_rows(converted[labels], num_classes)  # "unknown" is last, as "no object"
    return converted
