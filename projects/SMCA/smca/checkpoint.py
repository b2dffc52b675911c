"""Released SMCA weights (single scale) under this library's names: DETR's, and those of four modules of the decoder.

| released (SMCA-DETR)                                 | here                                 |
|------------------------------------------------------|--------------------------------------|
| `transformer.decoder.layers.N.norm4`                 | `decoder.layers.N.place_norm`        |
| `... .point2`, `point3`                              | `... .offset`, `sharpness`           |
| `transformer.decoder.layers.0.point1`                | `decoder.centre`                     |
| everything else                                      | see `align_detr.checkpoint.detr`     |

Classes: the released models have a sigmoid row per COCO id from 0 to 90, and one more that never has a target; a model
of 80 classes gets the rows of the 80 ids in use.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from align_detr.checkpoint.detr import coco_category_ids, convert_official_detr
from align_detr.checkpoint.key_map import rename

_LAYER = r"transformer\.decoder\.layers\.(\d+)\."
_RULES = [
    (_LAYER + r"norm4\.(weight|bias)", r"decoder.layers.\1.place_norm.\2"),
    (_LAYER + r"point2\.(weight|bias)", r"decoder.layers.\1.offset.\2"),
    (_LAYER + r"point3\.(weight|bias)", r"decoder.layers.\1.sharpness.\2"),
    (r"transformer\.decoder\.layers\.0\.point1\.(.+)", r"decoder.centre.\1"),
]
_SCALES = 2 * 8  # of a layer: two numbers per head
_ADDED = (".norm4.", ".point1.", ".point2.", ".point3.")


def is_smca_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of SMCA's released code with dynamic scale type 3: two numbers for each of 8
    heads. The scales of its other types have other numbers of rows, and their weights would mean something else here.
    """
    sharpness = state.get("transformer.decoder.layers.0.point3.weight")
    return sharpness is not None and sharpness.shape[0] == _SCALES


def convert_smca_detr(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Return the released entries under this library's names, with the classifier's rows for `num_classes`.

    Raise ConfigError for a key that is neither DETR's nor SMCA's.
    """
    added = {key: value for key, value in state.items() if any(name in key for name in _ADDED)}
    shared = {key: value for key, value in state.items() if key not in added}
    converted = {**convert_official_detr(shared, num_classes=None), **rename(added, _RULES, "SMCA")}
    for key in ("head.class_embed.weight", "head.class_embed.bias"):
        if key in converted and (converted[key].shape[0], num_classes) == (92, 80):
            converted[key] = converted[key][torch.tensor(coco_category_ids())]
    return converted
