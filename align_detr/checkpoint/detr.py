"""Names of the official DETR weights, there and here.

| official (facebookresearch/detr)                     | here                                         |
|------------------------------------------------------|----------------------------------------------|
| `backbone.0.body.*` (torchvision)                    | `backbone.*` (detectron2)                    |
| `input_proj`                                         | `neck.projection`                            |
| `query_embed.weight`                                 | `queries.position.weight`                    |
| `transformer.encoder.layers.N.self_attn`             | `encoder.layers.N.self_attn`                 |
| `... .linear1`, `linear2`                            | `... .ffn.linear1`, `ffn.linear2`            |
| `... .norm1`, `norm2` (encoder)                      | `... .self_attn_norm`, `ffn_norm`            |
| `transformer.decoder.layers.N.multihead_attn`        | `decoder.layers.N.cross_attn`                |
| `... .norm1`, `norm2`, `norm3` (decoder)             | `... .self_attn_norm`, `cross_attn_norm`, `ffn_norm` |
| `transformer.{encoder,decoder}.norm`                 | `encoder.norm`, `decoder.norm`               |
| `class_embed`, `bbox_embed`                          | `head.class_embed`, `head.bbox_embed`        |

Classes: the official models have one row per COCO id 0 to 90 and one for "no object". A model of 80 classes gets the
rows of the 80 ids in use, in ascending order, which is detectron2's order of contiguous ids.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.key_map import rename, resnet_depth, torchvision_resnet_rules

_LAYER = r"transformer\.(encoder|decoder)\.layers\.(\d+)\."
_RULES = [
    *torchvision_resnet_rules(r"backbone\.0\.body\."),
    (r"input_proj\.(weight|bias)", r"neck.projection.\1"),
    (r"query_embed\.weight", "queries.position.weight"),
    (r"(class_embed|bbox_embed)\.(.+)", r"head.\1.\2"),
    (_LAYER + r"self_attn\.(.+)", r"\1.layers.\2.self_attn.\3"),
    (_LAYER + r"multihead_attn\.(.+)", r"\1.layers.\2.cross_attn.\3"),
    (_LAYER + r"(linear[12]\..+)", r"\1.layers.\2.ffn.\3"),
    (_LAYER + r"norm1\.(.+)", r"\1.layers.\2.self_attn_norm.\3"),
    (r"transformer\.encoder\.layers\.(\d+)\.norm2\.(.+)", r"encoder.layers.\1.ffn_norm.\2"),
    (r"transformer\.decoder\.layers\.(\d+)\.norm2\.(.+)", r"decoder.layers.\1.cross_attn_norm.\2"),
    (r"transformer\.decoder\.layers\.(\d+)\.norm3\.(.+)", r"decoder.layers.\1.ffn_norm.\2"),
    (r"transformer\.(encoder|decoder)\.norm\.(.+)", r"\1.norm.\2"),
]


def is_official_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the official DETR code."""
    return "transformer.decoder.layers.0.multihead_attn.in_proj_weight" in state


def detr_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of the official DETR; its form with DC5 has the same tensors."""
    return f"detr/detr_{resnet_depth(state)}_500ep.py"


def convert_official_detr(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the official entries to this library's names, and select the classifier's rows for `num_classes`.

    A model of 80 classes gets COCO's 80 rows out of the official 92. For any other number all rows are kept, which the
    checkpointer reports and leaves out, as fine-tuning needs. Raise ConfigError for a key that is not DETR's.
    """
    converted = rename(state, _RULES, "DETR")
    for key in ("head.class_embed.weight", "head.class_embed.bias"):
        if key in converted:
            converted[key] = select_class_rows(converted[key], num_classes)
    return converted


def select_class_rows(rows: Tensor, num_classes: int | None) -> Tensor:
    """Return COCO's 80 rows and "no object" out of the official 92 for 80 classes, else all: (92, ...) -> (81, ...)."""
    if (rows.shape[0], num_classes) != (92, 80):
        return rows
    return rows[torch.tensor([*coco_category_ids(), 91])]


def coco_category_ids() -> list[int]:
    """Return the 80 ids of 1 to 90 that COCO uses, ascending."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    return sorted(c["id"] for c in COCO_CATEGORIES if c["isthing"])
