"""Names of DINO's weights: in detrex, as in Align-DETR's releases, in DINO's repository, and here.

What DINO has beyond the deformable detectors of `checkpoint/deformable.py`:

| detrex                          | DINO                            | here                                |
|---------------------------------|---------------------------------|-------------------------------------|
| `transformer.tgt_embed`         | the same                        | `queries.main.content`              |
| `label_enc`                     | the same, with a row unused     | `queries.label_embed`               |
| `transformer.decoder.norm`      | the same                        | `decoder.norm`                      |
| `class_embed.N`, `bbox_embed.N` | the same, one for all layers    | `head.class_embed`, `.bbox_embed`   |
| the same, one after the last    | `transformer.enc_out_*_embed`   | `proposals.class_embed`, `.bbox_embed` |

The model of DINO's repository is `configs/dino/dino_r50_4scale_official.py`.
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.deformable import convert_detrex, convert_official
from align_detr.checkpoint.key_map import Rules, resnet_depth

_COMMON: Rules = [
    (r"transformer\.tgt_embed\.weight", "queries.main.content.weight"),
    (r"transformer\.decoder\.norm\.(.+)", r"decoder.norm.\1"),
]
_DETREX: Rules = [*_COMMON, (r"label_enc\.weight", "queries.label_embed.weight")]
_OFFICIAL: Rules = [
    *_COMMON,
    (r"queries\.label_embed\.weight", "queries.label_embed.weight"),
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"decoder.query_position.position.\1"),
    (r"transformer\.enc_out_(class|bbox)_embed\.(.+)", r"proposals.\1_embed.\2"),
    # one head, stored once per layer, and all of that again in the decoder
    (r"(class|bbox)_embed\.0\.(.+)", r"head.\1_embed.\2"),
    (r"(?:class|bbox)_embed\.\d+\..+", ""),
]
_SWINS = {(13 * 13, 3, False): "swin_tiny_224", (23 * 23, 6, True): "swin_large_384"}
_CONFIGS = {
    "r50_4scale",
    "r50_5scale",
    "r101_4scale",
    "swin_tiny_224_4scale",
    "swin_large_384_4scale",
    "swin_large_384_5scale",
    "convnext_tiny_384_4scale",
}


def is_detrex_dino(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of detrex's DINO, or of Align-DETR, which is built on it."""
    return "transformer.level_embeds" in state and "label_enc.weight" in state


def is_official_dino(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of DINO's repository."""
    return "transformer.enc_out_class_embed.weight" in state and "label_enc.weight" in state


def convert_detrex_dino(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key."""
    return convert_detrex(state, _DETREX, num_classes, "detrex DINO")


def convert_official_dino(state: Mapping[str, Tensor], *, num_classes: int | None) -> dict[str, Tensor]:
    """Rename the entries to this library's names; raise ConfigError for any other key.

    A model of 80 classes gets COCO's 80 rows out of the official 91, of the denoising labels, too.
    """
    # the last row stands for no class and is never used
    labels = {"queries.label_embed.weight": state["label_enc.weight"][:-1]}
    rest = {key: value for key, value in state.items() if key != "label_enc.weight"}
    return convert_official({**rest, **labels}, _OFFICIAL, num_classes, "DINO")


def dino_config(state: Mapping[str, Tensor]) -> str | None:
    """Return the config of detrex's DINO, by backbone and levels, None if there is none; Align-DETR's tensors agree."""
    model = f"{_backbone(state)}_{len(state['transformer.level_embeds'])}scale"
    return f"dino/dino_{model}_12ep.py" if model in _CONFIGS else None


def _backbone(state: Mapping[str, Tensor]) -> str:
    """Return the backbone's part of a config's name, "another" for one that no config has."""
    table = state.get("backbone.layers.0.blocks.0.attn.relative_position_bias_table")
    if table is not None:  # one row for each distance in a window, one column for each head
        deep = "backbone.layers.2.blocks.17.norm1.weight" in state
        return _SWINS.get((table.shape[0], table.shape[1], deep), "another")
    stem = state.get("backbone.downsample_layers.0.0.weight")
    if stem is not None:
        return "convnext_tiny_384" if "backbone.stages.2.9.gamma" not in state and len(stem) == 96 else "another"
    return resnet_depth(state)


def official_dino_config(state: Mapping[str, Tensor]) -> str | None:
    """Return the config of DINO's repository, which the zoo has for ResNet-50 and four levels alone."""
    model = f"{resnet_depth(state)}_{len(state['transformer.level_embed'])}scale"
    return "dino/dino_r50_4scale_official.py" if model == "r50_4scale" else None
