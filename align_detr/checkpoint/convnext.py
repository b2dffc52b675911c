"""Names of ConvNeXts' weights: the authors' (and detrex's, under `backbone.`), torchvision's, and here.

| authors                                         | here, torchvision's                                  |
|-------------------------------------------------|------------------------------------------------------|
| `downsample_layers.0.0`, `.1`                   | `backbone.features.0.0`, `.1`                        |
| `downsample_layers.I.0`, `.1`                   | `backbone.features.2I.0`, `.1`                       |
| `stages.I.J.dwconv`, `norm`, `pwconv1`, `2`     | `backbone.features.2I+1.J.block.0`, `2`, `3`, `5`    |
| `stages.I.J.gamma` (C)                          | `backbone.features.2I+1.J.layer_scale` (C, 1, 1)     |
| `normI`, of detectors                           | `backbone.norms.resI+2`                              |
| `norm`, `head`, the classifier                  | dropped                                              |
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename

_TORCHVISION: Rules = [(r"(features\..+)", r"backbone.\1"), (r"classifier\..+", "")]


def is_convnext(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the authors' ConvNeXt, with or without its classifier."""
    return "downsample_layers.0.0.weight" in state and "stages.0.0.dwconv.weight" in state


def is_torchvision_convnext(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of torchvision's ConvNeXt."""
    return "features.1.0.layer_scale" in state


def convert_convnext(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to those of `ConvNeXt`; raise ConfigError for any other key."""
    return with_layer_scales(rename(state, [*convnext_rules(""), (r"(?:norm|head)\.(?:weight|bias)", "")], "ConvNeXt"))


def convert_torchvision_convnext(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to those of `ConvNeXt`; raise ConfigError for any other key."""
    return rename(state, _TORCHVISION, "torchvision ConvNeXt")


def convnext_rules(prefix: str) -> Rules:
    """Return the rules of all entries below `prefix`, a regular expression, but for a classifier."""
    rules: list[tuple[str, str]] = []
    for i in range(4):
        blocks = rf"backbone.features.{2 * i + 1}.\1"
        rules += [
            (rf"{prefix}downsample_layers\.{i}\.(.+)", rf"backbone.features.{2 * i}.\1"),
            (rf"{prefix}stages\.{i}\.(\d+)\.dwconv\.(.+)", rf"{blocks}.block.0.\2"),
            (rf"{prefix}stages\.{i}\.(\d+)\.norm\.(.+)", rf"{blocks}.block.2.\2"),
            (rf"{prefix}stages\.{i}\.(\d+)\.pwconv1\.(.+)", rf"{blocks}.block.3.\2"),
            (rf"{prefix}stages\.{i}\.(\d+)\.pwconv2\.(.+)", rf"{blocks}.block.5.\2"),
            (rf"{prefix}stages\.{i}\.(\d+)\.gamma", rf"{blocks}.layer_scale"),
            (rf"{prefix}norm{i}\.(.+)", rf"backbone.norms.res{i + 2}.\1"),
        ]
    return rules


def with_layer_scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return renamed weights with the factors of residual branches as (C, 1, 1)."""
    return {
        key: value[:, None, None] if key.endswith(".layer_scale") and value.dim() == 1 else value
        for key, value in state.items()
    }
