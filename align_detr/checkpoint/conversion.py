"""Recognition and conversion of published weights: one row per release, whose rules are in a module of the package."""

from collections.abc import Callable, Mapping

from torch import Tensor

from align_detr.checkpoint.conditional import convert_official_conditional, is_official_conditional
from align_detr.checkpoint.deformable import (
    convert_detrex_deformable,
    convert_official_deformable,
    is_detrex_deformable,
    is_official_deformable,
)
from align_detr.checkpoint.detr import convert_official_detr, is_official_detr
from align_detr.checkpoint.detrex import (
    convert_detrex_conditional_detr,
    convert_detrex_dab_detr,
    convert_detrex_dn_detr,
    is_detrex_conditional_detr,
    is_detrex_dab_detr,
    is_detrex_dn_detr,
)
from align_detr.checkpoint.dino import (
    convert_detrex_dino,
    convert_official_dino,
    is_detrex_dino,
    is_official_dino,
)
from align_detr.checkpoint.key_map import rename, torchvision_resnet_rules

State = Mapping[str, Tensor]


def is_torchvision_resnet(state: State) -> bool:
    """Return whether the keys are those of torchvision's ResNet."""
    return "layer1.0.conv1.weight" in state and "bn1.running_mean" in state


def is_torchvision_mobilenet_v2(state: State) -> bool:
    """Return whether the keys are those of torchvision's MobileNetV2, with or without its classifier."""
    return "features.0.0.weight" in state and "features.17.conv.0.0.weight" in state


def convert(state: State, *, num_classes: int | None) -> State:
    """Return the weights under this library's names if their keys are a published release's, else unchanged.

    `num_classes` selects the classifier's rows (see `align_detr.checkpoint.detr`); None keeps all.
    """
    for is_release, convert_release in _RELEASES:
        if is_release(state):
            return convert_release(state, num_classes)
    return state


def register_release(
    is_release: Callable[[State], bool], convert_release: Callable[[State, int | None], State]
) -> None:
    """Add a release, such as a project's; `convert_release` gets the state dict and `num_classes`.

    It comes before the registered ones: some published models have all of DETR's keys and a few more.
    """
    _RELEASES.insert(0, (is_release, convert_release))


_RELEASES: list[tuple[Callable[[State], bool], Callable[[State, int | None], State]]] = [
    (is_official_detr, lambda state, num_classes: convert_official_detr(state, num_classes=num_classes)),
    (
        is_official_conditional,
        lambda state, num_classes: convert_official_conditional(state, num_classes=num_classes),
    ),
    (is_detrex_conditional_detr, lambda state, _: convert_detrex_conditional_detr(state)),
    (is_detrex_dab_detr, lambda state, _: convert_detrex_dab_detr(state)),
    (is_detrex_dn_detr, lambda state, _: convert_detrex_dn_detr(state)),
    # before the deformable detectors, whose keys DINO has too
    (is_detrex_dino, lambda state, num_classes: convert_detrex_dino(state, num_classes=num_classes)),
    (is_official_dino, lambda state, num_classes: convert_official_dino(state, num_classes=num_classes)),
    (is_detrex_deformable, lambda state, num_classes: convert_detrex_deformable(state, num_classes=num_classes)),
    (is_official_deformable, lambda state, num_classes: convert_official_deformable(state, num_classes=num_classes)),
    (is_torchvision_resnet, lambda state, _: rename(state, torchvision_resnet_rules(""), "torchvision ResNet")),
    (is_torchvision_mobilenet_v2, lambda state, _: {f"backbone.{key}": value for key, value in state.items()}),
]
