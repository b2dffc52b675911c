"""Names of the deformable detectors' weights: in detrex, in Deformable-DETR's repository, and here.

| detrex                                | Deformable-DETR          | here                                          |
|---------------------------------------|--------------------------|-----------------------------------------------|
| `backbone.*` (detectron2; Swin and ConvNeXt: see there) | `backbone.0.body.*` | `backbone.*`             |
| `neck.convs.N`, `neck.extra_convs.N`  | `input_proj.N.0`, `.1`   | `neck.levels.N.conv`, `.norm`                 |
| `transformer.level_embeds`            | `transformer.level_embed` | `neck.level_embed`                           |
| encoder `attentions.0`                | `self_attn`              | `self_attn`                                   |
| `norms.0`, `norms.1`                  | `norm1`, `norm2`         | `self_attn_norm`, `ffn_norm`                  |
| decoder `attentions.0.attn`, `.1`     | `self_attn`, `cross_attn` | `self_attn`, `cross_attn`                    |
| `norms.0`, `norms.1`, `norms.2`       | `norm2`, `norm1`, `norm3` | `self_attn_norm`, `cross_attn_norm`, `ffn_norm` |
| `ffns.0.layers.0.0`, `layers.1`       | `linear1`, `linear2`     | `ffn.linear1`, `ffn.linear2`                  |
| `query_embedding`, both halves        | `query_embed`            | `queries.position`, `queries.content`         |
| `transformer.reference_points`        | the same                 | `queries.reference_points`                    |
| `transformer.enc_output(_norm)`       | the same                 | `proposals.projection`, `proposals.norm`      |
| `transformer.pos_trans(_norm)`        | the same                 | `queries.projection`, `queries.norm`          |
| `tgt_embed`, `refpoint_embed`         | -                        | `queries.content`, `queries.anchor`           |
| `transformer.decoder.ref_point_head`  | -                        | `decoder.query_position.position`             |
| `transformer.decoder.query_scale`     | -                        | `decoder.query_position.query_scale`          |
| `class_embed.N`, `bbox_embed.N`       | the same                 | `head.class_embed.N`, `head.bbox_embed.N`     |
| the same, with N after the last layer | the same                 | `proposals.class_embed`, `proposals.bbox_embed` |

Heads are stored twice if the decoder refines boxes (`transformer.decoder.bbox_embed`), and a shared head once per
layer: the copies are dropped.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.convnext import convnext_rules, with_layer_scales
from align_detr.checkpoint.detr import coco_category_ids
from align_detr.checkpoint.detrex import DETECTRON2_RESNET_RULES, LAYER_RULES
from align_detr.checkpoint.key_map import Rules, rename, torchvision_resnet_rules
from align_detr.checkpoint.swin import swin_rules

_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER = r"transformer\.decoder\.layers\.(\d+)\."
_DETREX: Rules = [
    *DETECTRON2_RESNET_RULES,
    *swin_rules(r"backbone\."),
    *convnext_rules(r"backbone\."),
    *LAYER_RULES,
    (r"neck\.convs\.(\d+)\.(.+)", r"neck.levels.\1.\2"),
    (r"transformer\.level_embeds", "neck.level_embed"),
    (_ENCODER + r"attentions\.0\.(.+)", r"encoder.layers.\1.self_attn.\2"),
    (_DECODER + r"attentions\.0\.attn\.(.+)", r"decoder.layers.\1.self_attn.\2"),
    (_DECODER + r"attentions\.1\.(.+)", r"decoder.layers.\1.cross_attn.\2"),
    (r"tgt_embed\.weight", "queries.content.weight"),
    (r"refpoint_embed\.weight", "queries.anchor.weight"),
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"decoder.query_position.position.\1"),
    (r"transformer\.decoder\.query_scale\.(.+)", r"decoder.query_position.query_scale.\1"),
]
_OFFICIAL: Rules = [
    *torchvision_resnet_rules(r"backbone\.0\.body\."),
    (r"input_proj\.(\d+)\.0\.(.+)", r"neck.levels.\1.conv.\2"),
    (r"input_proj\.(\d+)\.1\.(.+)", r"neck.levels.\1.norm.\2"),
    (r"transformer\.level_embed", "neck.level_embed"),
    (r"transformer\.(\w+)\.layers\.(\d+)\.((?:self|cross)_attn\..+)", r"\1.layers.\2.\3"),
    (r"transformer\.(\w+)\.layers\.(\d+)\.(linear[12]\..+)", r"\1.layers.\2.ffn.\3"),
    (_ENCODER + r"norm1\.(.+)", r"encoder.layers.\1.self_attn_norm.\2"),
    (_ENCODER + r"norm2\.(.+)", r"encoder.layers.\1.ffn_norm.\2"),
    (_DECODER + r"norm1\.(.+)", r"decoder.layers.\1.cross_attn_norm.\2"),
    (_DECODER + r"norm2\.(.+)", r"decoder.layers.\1.self_attn_norm.\2"),
    (_DECODER + r"norm3\.(.+)", r"decoder.layers.\1.ffn_norm.\2"),
]


def is_detrex_deformable(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of one of detrex's deformable detectors."""
    return "transformer.level_embeds" in state


def is_official_deformable(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of Deformable-DETR's repository."""
    return "transformer.level_embed" in state


def convert_detrex_deformable(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the entries of detrex's Deformable-DETR, DAB-Deformable-DETR or H-Deformable-DETR to this library's names.

    Raise ConfigError for any other key.
    """
    return convert_detrex(state, [], num_classes, "a detrex deformable detector")


def convert_official_deformable(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the entries of the original Deformable-DETR to this library's names.

    A model of 80 classes gets COCO's 80 rows out of the official 91. Raise ConfigError for any other key.
    """
    return convert_official(state, [], num_classes, "Deformable-DETR")


def deformable_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of a deformable detector, of detrex or of the original code, by its parts."""
    two_stage = "transformer.enc_output.weight" in state
    if "transformer.decoder.ref_point_head.layers.0.weight" in state:
        return f"dab_deformable_detr/dab_deformable_detr_r50{'_two_stage' if two_stage else ''}_50ep.py"
    queries = state.get("query_embedding.weight", state.get("query_embed.weight"))
    if two_stage and queries is not None and queries.shape[1] == _embed_dim(state):
        return "h_deformable_detr/h_deformable_detr_r50_12ep.py"
    if two_stage:
        return "deformable_detr/deformable_detr_r50_two_stage_50ep.py"
    if any(key.startswith("transformer.decoder.bbox_embed.") for key in state):
        return "deformable_detr/deformable_detr_r50_refine_50ep.py"
    single = "_single_scale" if "input_proj.1.0.weight" not in state and "neck.convs.1.conv.weight" not in state else ""
    return f"deformable_detr/deformable_detr_r50{single}_50ep.py"


def convert_detrex(
    state: Mapping[str, Tensor], rules: Rules, num_classes: int | None, source: str
) -> dict[str, Tensor]:
    """Rename the entries of a detrex detector by `rules`, then by those of the deformable detectors.

    `source` is the model's name in an error.
    """
    first_extra = _count(state, r"neck\.convs\.(\d+)\..+")
    extra = [
        (rf"neck\.extra_convs\.{i}\.(.+)", rf"neck.levels.{first_extra + i}.\1")
        for i in range(_count(state, r"neck\.extra_convs\.(\d+)\..+"))
    ]
    return with_layer_scales(_convert(state, [*rules, *_DETREX, *extra], num_classes, source))


def convert_official(
    state: Mapping[str, Tensor], rules: Rules, num_classes: int | None, source: str
) -> dict[str, Tensor]:
    """Rename the entries of a detector that follows the original Deformable-DETR, as `convert_detrex` does."""
    return _convert(state, [*rules, *_OFFICIAL], num_classes, source)


def _convert(state: Mapping[str, Tensor], rules: Rules, num_classes: int | None, source: str) -> dict[str, Tensor]:
    state = _with_query_tables(state)
    converted = rename(state, [*rules, *_proposal_rules(state), *_head_rules(state)], source)
    agnostic = "transformer.pos_trans.weight" in state  # Deformable-DETR's two stages; DINO's proposals have classes
    return {key: _class_rows(key, value, num_classes, agnostic) for key, value in converted.items()}


def _with_query_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the table of learned queries into positions and contents, under their new names."""
    result = {}
    for key, value in state.items():
        if key not in ("query_embedding.weight", "query_embed.weight"):
            result[key] = value
        elif value.shape[1] == _embed_dim(state):  # mixed selection has contents only, of both branches
            result["queries.source.content.weight"] = value
        else:
            result["queries.position.weight"], result["queries.content.weight"] = value.chunk(2, dim=1)
    return result


def _embed_dim(state: Mapping[str, Tensor]) -> int:
    return next(value for key, value in state.items() if key.startswith("transformer.level_embed")).shape[1]


def _proposal_rules(state: Mapping[str, Tensor]) -> Rules:
    queries = "queries.source" if "queries.source.content.weight" in state else "queries"
    return [
        (r"(queries\..+)", r"\1"),
        (r"transformer\.reference_points\.(.+)", r"queries.reference_points.\1"),
        (r"transformer\.enc_output\.(.+)", r"proposals.projection.\1"),
        (r"transformer\.enc_output_norm\.(.+)", r"proposals.norm.\1"),
        (r"transformer\.pos_trans\.(.+)", rf"{queries}.projection.\1"),
        (r"transformer\.pos_trans_norm\.(.+)", rf"{queries}.norm.\1"),
    ]


def _head_rules(state: Mapping[str, Tensor]) -> Rules:
    """Return the rules of one head for all layers, or of one per layer and perhaps one for the proposals."""
    copies = [(r"transformer\.decoder\.(?:class|bbox)_embed\..+", "")]
    if not any(key.startswith("transformer.decoder.bbox_embed.") for key in state):
        shared = [(r"(class|bbox)_embed\.0\.(.+)", r"head.\1_embed.\2"), (r"(?:class|bbox)_embed\.\d+\..+", "")]
        return [*copies, *shared]
    num_layers = _count(state, _DECODER + r".+")
    return [
        *copies,
        (rf"(class|bbox)_embed\.{num_layers}\.(.+)", r"proposals.\1_embed.\2"),
        (r"(class|bbox)_embed\.(\d+)\.(.+)", r"head.\1_embed.\2.\3"),
    ]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers the keys have in the group of `pattern`."""
    return len({match[1] for match in (re.fullmatch(pattern, key) for key in state) if match})


def _class_rows(key: str, value: Tensor, num_classes: int | None, agnostic: bool) -> Tensor:
    """Return COCO's 80 rows out of the official 91 if `value` has one row per class and the model has 80 classes.

    The first row of `agnostic` proposals means "object", not the id 0, which COCO does not use: it stays first.
    """
    if not re.search(r"(class|label)_embed", key) or (value.shape[0], num_classes) != (91, 80):
        return value
    ids = coco_category_ids()
    return value[torch.tensor([0, *ids[1:]] if agnostic and key.startswith("proposals.") else ids)]
