"""Published Anchor-DETR weights under this library's names.

| published (detrex)                                   | here                                               |
|------------------------------------------------------|----------------------------------------------------|
| `backbone.body.*` (torchvision)                      | `backbone.*` (detectron2)                          |
| `input_proj.0`, `input_proj.1`                       | `neck.projection`, `neck.norm`                     |
| `input_proj.0.0`, `input_proj.0.1` (the authors')    | the same                                           |
| `transformer.adapt_pos2d`, `adapt_pos1d`             | `neck.position.point`, `neck.position.axis`        |
| `transformer.position`, `transformer.pattern`        | `queries.point`, `queries.pattern`                 |
| `transformer.{encoder,decoder}_layers.N.*`           | `{encoder,decoder}.layers.N.*`                     |
| `... .norm1` (encoder)                               | `... .self_attn_norm`                              |
| `... .norm1`, `norm2` (decoder)                      | `... .cross_attn_norm`, `self_attn_norm`           |
| `... .ffn.norm2`                                     | `... .ffn_norm`                                    |
| `transformer.class_embed.0`, `bbox_embed.0`          | `head.class_embed`, `head.bbox_embed`              |
| `transformer.class_embed.N`, `bbox_embed.N`          | the same tensors again: dropped                    |

The variant with ordinary attention also stores `adapt_pos1d`, which it does not use: dropped. The names of the authors'
own files are those that their code gives; no such file was at hand.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.detr import coco_category_ids
from align_detr.checkpoint.key_map import rename, resnet_depth, torchvision_resnet_rules

_LAYER = r"transformer\.(encoder|decoder)_layers\.(\d+)\."
_RULES = [
    *torchvision_resnet_rules(r"backbone\.body\."),
    (r"input_proj\.0\.0\.(weight|bias)", r"neck.projection.\1"),
    (r"input_proj\.0\.1\.(weight|bias)", r"neck.norm.\1"),
    (r"input_proj\.0\.(weight|bias)", r"neck.projection.\1"),
    (r"input_proj\.1\.(weight|bias)", r"neck.norm.\1"),
    (r"transformer\.position\.weight", "queries.point.weight"),
    (r"transformer\.pattern\.weight", "queries.pattern.weight"),
    (r"transformer\.adapt_pos2d\.0\.(.+)", r"neck.position.point.layers.0.\1"),
    (r"transformer\.adapt_pos2d\.2\.(.+)", r"neck.position.point.layers.1.\1"),
    (_LAYER + r"((?:self|cross)_attn\..+)", r"\1.layers.\2.\3"),
    (_LAYER + r"ffn\.norm2\.(.+)", r"\1.layers.\2.ffn_norm.\3"),
    (_LAYER + r"(ffn\.linear[12]\..+)", r"\1.layers.\2.\3"),
    (r"transformer\.encoder_layers\.(\d+)\.norm1\.(.+)", r"encoder.layers.\1.self_attn_norm.\2"),
    (r"transformer\.decoder_layers\.(\d+)\.norm1\.(.+)", r"decoder.layers.\1.cross_attn_norm.\2"),
    (r"transformer\.decoder_layers\.(\d+)\.norm2\.(.+)", r"decoder.layers.\1.self_attn_norm.\2"),
    (r"transformer\.(class_embed|bbox_embed)\.0\.(.+)", r"head.\1.\2"),
    (r"transformer\.(class_embed|bbox_embed)\.\d+\..+", ""),
]
_AXIS_RULES = [
    (r"transformer\.adapt_pos1d\.0\.(.+)", r"neck.position.axis.layers.0.\1"),
    (r"transformer\.adapt_pos1d\.2\.(.+)", r"neck.position.axis.layers.1.\1"),
]
_DROP_AXIS_RULES = [(r"transformer\.adapt_pos1d\..+", "")]
_CROSS_ATTN_WEIGHT = "transformer.decoder_layers.0.cross_attn.in_proj_weight"


def is_anchor_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of published Anchor-DETR weights."""
    return _CROSS_ATTN_WEIGHT in state and "transformer.pattern.weight" in state


def convert_anchor_detr(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Return the published entries under this library's names; raise ConfigError for a key that is not Anchor-DETR's.

    The number of projections tells row-column decoupled from ordinary attention. If the classifier has a row per COCO
    id up to 90, a model of 80 classes gets the rows of the 80 ids in use.
    """
    axis = _AXIS_RULES if _is_decoupled(state) else _DROP_AXIS_RULES
    converted = rename(state, [*_RULES, *axis], "Anchor-DETR")
    for key in ("head.class_embed.weight", "head.class_embed.bias"):
        if (converted[key].shape[0], num_classes) == (91, 80):
            converted[key] = converted[key][torch.tensor(coco_category_ids())]
    return converted


def anchor_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of published Anchor-DETR weights; the form with DC5 has the same tensors."""
    return f"AnchorDETR/anchor_detr_{resnet_depth(state)}{'' if _is_decoupled(state) else '_mha'}_50ep.py"


def _is_decoupled(state: Mapping[str, Tensor]) -> bool:
    """Return whether attention is decoupled into rows and columns, which takes five projections instead of three."""
    weight = state[_CROSS_ATTN_WEIGHT]
    return weight.shape[0] // weight.shape[1] == 5
