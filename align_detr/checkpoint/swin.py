"""Names of Swin Transformers' weights: the authors' (and detectron2's, under `backbone.`), timm's, and here.

| authors                                        | here, torchvision's                                    |
|------------------------------------------------|--------------------------------------------------------|
| `patch_embed.proj`, `.norm`                    | `backbone.features.0.0`, `.2`                          |
| `layers.I.blocks.J`, `mlp.fc1`, `mlp.fc2`      | `backbone.features.2I+1.J`, `mlp.0`, `mlp.3`           |
| `layers.I.downsample`; in timm `layers.I+1`    | `backbone.features.2I+2`                               |
| `normI`, of detectors                          | `backbone.norms.resI+2`                                |
| `relative_position_index`, `attn_mask`         | dropped, they follow from sizes                        |
| `norm`, `head`, the classifier                 | dropped                                                |

torchvision's own files have the names here without `backbone.`.
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename

_TORCHVISION: Rules = [
    (r".*\.relative_position_index", ""),
    (r"(features\..+)", r"backbone.\1"),
    (r"(?:norm|head)\.(?:weight|bias)", ""),
]


def is_swin(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the authors' or timm's Swin Transformer, with or without its classifier."""
    return "patch_embed.proj.weight" in state and "layers.0.blocks.0.attn.relative_position_bias_table" in state


def is_torchvision_swin(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of torchvision's Swin Transformer."""
    return "features.1.0.attn.relative_position_bias_table" in state


def convert_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to those of `SwinTransformer`; raise ConfigError for any other key."""
    reductions_first = "layers.0.downsample.reduction.weight" not in state
    classifier = (r"(?:norm|head|head\.fc)\.(?:weight|bias)", "")
    return rename(state, [*swin_rules("", reductions_first=reductions_first), classifier], "Swin Transformer")


def convert_torchvision_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to those of `SwinTransformer`; raise ConfigError for any other key."""
    return rename(state, _TORCHVISION, "torchvision Swin Transformer")


def swin_rules(prefix: str, *, reductions_first: bool = False) -> Rules:
    """Return the rules of all entries below `prefix`, a regular expression, but for a classifier.

    `reductions_first`: a reduction belongs to the stage after it, as in timm, not to the one before.
    """
    rules: list[tuple[str, str]] = [
        (rf"{prefix}layers\..*\.(?:relative_position_index|attn_mask)", ""),
        (rf"{prefix}patch_embed\.proj\.(.+)", r"backbone.features.0.0.\1"),
        (rf"{prefix}patch_embed\.norm\.(.+)", r"backbone.features.0.2.\1"),
    ]
    for i in range(4):
        blocks, reduction = (
            f"backbone.features.{2 * i + 1}",
            f"backbone.features.{2 * i + (0 if reductions_first else 2)}",
        )
        rules += [
            (rf"{prefix}layers\.{i}\.blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{blocks}.\1.mlp.0.\2"),
            (rf"{prefix}layers\.{i}\.blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{blocks}.\1.mlp.3.\2"),
            (rf"{prefix}layers\.{i}\.blocks\.(\d+)\.((?:norm[12]|attn)\..+)", rf"{blocks}.\1.\2"),
            (rf"{prefix}layers\.{i}\.downsample\.(.+)", rf"{reduction}.\1"),
            (rf"{prefix}norm{i}\.(.+)", rf"backbone.norms.res{i + 2}.\1"),
        ]
    return rules
