"""Recognition and conversion of published weights: one row per release, whose rules are in a module of the package."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from align_detr.checkpoint.conditional import (
    convert_official_conditional,
    is_official_conditional,
    official_conditional_config,
)
from align_detr.checkpoint.convnext import (
    convert_convnext,
    convert_torchvision_convnext,
    is_convnext,
    is_torchvision_convnext,
)
from align_detr.checkpoint.deformable import (
    convert_detrex_deformable,
    convert_official_deformable,
    deformable_config,
    is_detrex_deformable,
    is_official_deformable,
)
from align_detr.checkpoint.detr import convert_official_detr, detr_config, is_official_detr
from align_detr.checkpoint.detrex import (
    conditional_config,
    convert_detrex_conditional_detr,
    convert_detrex_dab_detr,
    convert_detrex_dn_detr,
    dab_config,
    dn_config,
    is_detrex_conditional_detr,
    is_detrex_dab_detr,
    is_detrex_dn_detr,
)
from align_detr.checkpoint.dino import (
    convert_detrex_dino,
    convert_official_dino,
    dino_config,
    is_detrex_dino,
    is_official_dino,
    official_dino_config,
)
from align_detr.checkpoint.efficientnet import convert_efficientnet_lite, is_efficientnet_lite
from align_detr.checkpoint.key_map import rename, torchvision_resnet_rules
from align_detr.checkpoint.swin import convert_swin, convert_torchvision_swin, is_swin, is_torchvision_swin

State = Mapping[str, Tensor]


class Release(NamedTuple):
    """One kind of published weights: how it is recognised and renamed.

    `convert` gets the state dict and K (None: keep all rows of the classifiers). `config` returns the name of the
    config whose model the weights are of, or None if the zoo has none; no function where they are a backbone, which
    starts any model.
    """

    name: str
    recognises: Callable[[State], bool]
    convert: Callable[[State, int | None], State]
    config: Callable[[State], str | None] | None = None


def is_torchvision_resnet(state: State) -> bool:
    """Return whether the keys are those of torchvision's ResNet."""
    return "layer1.0.conv1.weight" in state and "bn1.running_mean" in state


def is_torchvision_mobilenet_v2(state: State) -> bool:
    """Return whether the keys are those of torchvision's MobileNetV2, with or without its classifier."""
    return "features.0.0.weight" in state and "features.17.conv.0.0.weight" in state


def find_release(state: State) -> Release | None:
    """Return the release whose keys a state dict has, or None."""
    return next((release for release in _RELEASES if release.recognises(state)), None)


def convert(state: State, *, num_classes: int | None) -> State:
    """Return the weights under this library's names if their keys are a published release's, else unchanged.

    `num_classes` selects the classifier's rows (see `align_detr.checkpoint.detr`); None keeps all.
    """
    release = find_release(state)
    return state if release is None else release.convert(state, num_classes)


def register_release(
    recognises: Callable[[State], bool],
    convert_release: Callable[[State, int | None], State],
    *,
    name: str = "a project",
    config: Callable[[State], str | None] | None = None,
) -> None:
    """Add a release, such as a project's; the arguments are the fields of `Release`.

    It comes before the registered ones: some published models have all of DETR's keys and a few more.
    """
    _RELEASES.insert(0, Release(name, recognises, convert_release, config))


_RELEASES: list[Release] = [
    Release("DETR", is_official_detr, lambda state, k: convert_official_detr(state, num_classes=k), detr_config),
    Release(
        "the authors' Conditional-, DAB- or DN-DETR",
        is_official_conditional,
        lambda state, k: convert_official_conditional(state, num_classes=k),
        official_conditional_config,
    ),
    Release(
        "detrex's Conditional-DETR",
        is_detrex_conditional_detr,
        lambda state, _: convert_detrex_conditional_detr(state),
        conditional_config,
    ),
    Release("detrex's DAB-DETR", is_detrex_dab_detr, lambda state, _: convert_detrex_dab_detr(state), dab_config),
    Release("detrex's DN-DETR", is_detrex_dn_detr, lambda state, _: convert_detrex_dn_detr(state), dn_config),
    # before the deformable detectors, whose keys DINO has too
    Release("detrex's DINO", is_detrex_dino, lambda state, k: convert_detrex_dino(state, num_classes=k), dino_config),
    Release(
        "the original DINO",
        is_official_dino,
        lambda state, k: convert_official_dino(state, num_classes=k),
        official_dino_config,
    ),
    Release(
        "a deformable detector of detrex",
        is_detrex_deformable,
        lambda state, k: convert_detrex_deformable(state, num_classes=k),
        deformable_config,
    ),
    Release(
        "the original Deformable-DETR",
        is_official_deformable,
        lambda state, k: convert_official_deformable(state, num_classes=k),
        deformable_config,
    ),
    Release(
        "torchvision's ResNet",
        is_torchvision_resnet,
        lambda state, _: rename(state, torchvision_resnet_rules(""), "torchvision ResNet"),
    ),
    Release(
        "torchvision's MobileNetV2",
        is_torchvision_mobilenet_v2,
        lambda state, _: {f"backbone.{key}": value for key, value in state.items()},
    ),
    Release("Swin Transformer", is_swin, lambda state, _: convert_swin(state)),
    Release("torchvision's Swin Transformer", is_torchvision_swin, lambda state, _: convert_torchvision_swin(state)),
    Release("ConvNeXt", is_convnext, lambda state, _: convert_convnext(state)),
    Release("torchvision's ConvNeXt", is_torchvision_convnext, lambda state, _: convert_torchvision_convnext(state)),
    Release("EfficientNet-Lite", is_efficientnet_lite, lambda state, _: convert_efficientnet_lite(state)),
]
