"""Released weights of DETR's panoptic models under this library's names.

| released (facebookresearch/detr)      | here                                             |
|---------------------------------------|--------------------------------------------------|
| `detr.*`                              | see `align_detr.checkpoint.detr`                 |
| `bbox_attention.q_linear`, `k_linear` | `masks.attention.query`, `masks.attention.key`   |
| `mask_head.lay1` to `lay5`            | `masks.head.blocks.0.conv` to `blocks.4.conv`    |
| `mask_head.gn1` to `gn5`              | `masks.head.blocks.0.norm` to `blocks.4.norm`    |
| `mask_head.adapter1` to `adapter3`    | `masks.head.adapters.0` to `adapters.2`          |
| `mask_head.out_lay`                   | `masks.head.output`                              |

Classes: the released models have a row per COCO id from 0 to 249 and one for "no object". COCO's panoptic ids are up to
200; the rows of its 80 things and 53 stuff classes in the order of detectron2, and "no object", are taken. The names
come from DETR's code; no file was at hand to check them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.detr import convert_official_detr
from align_detr.checkpoint.key_map import rename, resnet_depth

_RULES = [
    (r"bbox_attention\.q_linear\.(weight|bias)", r"masks.attention.query.\1"),
    (r"bbox_attention\.k_linear\.(weight|bias)", r"masks.attention.key.\1"),
    *((rf"mask_head\.lay{n}\.(weight|bias)", rf"masks.head.blocks.{n - 1}.conv.\1") for n in range(1, 6)),
    *((rf"mask_head\.gn{n}\.(weight|bias)", rf"masks.head.blocks.{n - 1}.norm.\1") for n in range(1, 6)),
    *((rf"mask_head\.adapter{n}\.(weight|bias)", rf"masks.head.adapters.{n - 1}.\1") for n in range(1, 4)),
    (r"mask_head\.out_lay\.(weight|bias)", r"masks.head.output.\1"),
]
_ROWS = 251
_PREFIX = "detr."


def is_panoptic_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of DETR's code for segmentation."""
    return "bbox_attention.q_linear.weight" in state and "mask_head.lay1.weight" in state


def panoptic_detr_config(state: Mapping[str, Tensor]) -> str:
    """Return the config of the released model; its form with DC5 has the same tensors."""
    return f"DETRSegmentation/detr_{resnet_depth(state)}_panoptic_25ep.py"


def convert_panoptic_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the released entries under this library's names. Raise ConfigError for a key that is not theirs."""
    detector = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    added = {key: value for key, value in state.items() if not key.startswith(_PREFIX)}
    converted = {**convert_official_detr(detector, num_classes=None), **rename(added, _RULES, "DETR's segmentation")}
    for key in ("head.class_embed.weight", "head.class_embed.bias"):
        if key in converted and converted[key].shape[0] == _ROWS:
            converted[key] = converted[key][torch.tensor([*coco_panoptic_ids(), _ROWS - 1])]
    return converted


def coco_panoptic_ids() -> list[int]:
    """Return the ids of COCO's 133 panoptic classes: things, then stuff, each ascending."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    return [c["id"] for c in sorted(COCO_CATEGORIES, key=lambda c: (not c["isthing"], c["id"]))]
