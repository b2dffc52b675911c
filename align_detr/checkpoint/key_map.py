"""Renaming of state-dict keys by rules, and the rules for backbones."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from align_detr.errors import ConfigError

# A rule is a regular expression for a whole key, and the new key; an empty new key drops the entry on purpose. The
# first rule that matches applies.
Rules = Sequence[tuple[str, str]]


def rename(state: Mapping[str, Tensor], rules: Rules, source: str) -> dict[str, Tensor]:
    """Return the entries of `state` under their new names.

    Raise ConfigError, with the model's name `source`, for a key that no rule matches: nothing is dropped by accident.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    renamed = {}
    for key, value in state.items():
        for pattern, new in compiled:
            match = pattern.fullmatch(key)
            if match:
                if new:
                    renamed[match.expand(new)] = value
                break
        else:
            raise ConfigError(f"The key '{key}' is not one of {source}'s: correct train.init_checkpoint or the config.")
    return renamed


def torchvision_resnet_rules(prefix: str) -> Rules:
    """Return the rules from torchvision's ResNet under `prefix`, a regular expression, to detectron2's `backbone.`."""
    stages = [
        (rf"{prefix}layer{stage - 1}\.(\d+)\.{old}", rf"backbone.res{stage}.\1.{new}")
        for stage in (2, 3, 4, 5)
        for old, new in [
            (r"conv(\d)\.weight", r"conv\2.weight"),
            (r"bn(\d)\.(weight|bias|running_mean|running_var)", r"conv\2.norm.\3"),
            (r"downsample\.0\.weight", "shortcut.weight"),
            (r"downsample\.1\.(weight|bias|running_mean|running_var)", r"shortcut.norm.\2"),
        ]
    ]
    return [
        (rf"{prefix}conv1\.weight", "backbone.stem.conv1.weight"),
        (rf"{prefix}bn1\.(weight|bias|running_mean|running_var)", r"backbone.stem.conv1.norm.\1"),
        *stages,
        (rf"{prefix}.*num_batches_tracked", ""),  # a counter that frozen batch norm does not have
        (rf"{prefix}fc\.(weight|bias)", ""),  # the ImageNet classifier
    ]


def resnet_depth(state: Mapping[str, Tensor]) -> str:
    """Return "r50" or "r101", by the blocks of the third stage, of torchvision's or detectron2's ResNet."""
    deep = re.compile(r"(?:.*\.)?(?:layer3|res4)\.22\..+")
    return "r101" if any(deep.fullmatch(key) for key in state) else "r50"
