"""Checks of settings, of annotations, and of parts that must fit each other; every wrong number reads the same."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from detectron2.structures import Instances
from torch import nn

from align_detr.errors import ConfigError, DatasetError
from align_detr.value_checks import (
    check_between,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_share,
    check_texts,
    is_number,
)

if TYPE_CHECKING:
    from align_detr.structures import Predictions

__all__ = [
    "MustAgree",
    "ReadsLogits",
    "check_annotations",
    "check_between",
    "check_choice",
    "check_classes",
    "check_count",
    "check_flag",
    "check_logits",
    "check_number",
    "check_parts",
    "check_share",
    "check_texts",
    "is_number",
    "require_finite",
]


def require_finite(model: nn.Module, path: str) -> None:
    """Raise ConfigError for a tensor of `model` that is not finite, as the file of weights `path` gave it.

    Tensors without numbers, on the meta device, pass.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.is_meta and not bool(torch.isfinite(value).all()):
            raise ConfigError(f"{path} gives '{name}' a number that is NaN or infinite: take another checkpoint.")


def check_annotations(instances: Instances, name: str, num_classes: int) -> None:
    """Raise DatasetError for an object of image `name` with an unknown class or an impossible box."""
    low, high = int(instances.gt_classes.min()), int(instances.gt_classes.max())
    if low < 0 or high >= num_classes:
        raise DatasetError(
            f"Image {name} has an object of class {low if low < 0 else high}, but the model has {num_classes} classes "
            f"(0 to {num_classes - 1}): set model.head.num_classes (in an R-CNN, model.roi_heads.num_classes) to the "
            "data set's number."
        )
    if not bool(torch.isfinite(instances.gt_boxes.tensor).all()):
        raise DatasetError(f"Image {name} has a box with a coordinate that is not finite: correct its annotation.")
    corners = instances.gt_boxes.tensor
    if bool((corners[:, 2:] < corners[:, :2]).any()):
        raise DatasetError(
            f"Image {name} has a box whose right or bottom edge comes before its left or top one: correct its "
            "annotation (gt_boxes are x0, y0, x1, y1)."
        )


@runtime_checkable
class MustAgree(Protocol):
    """The interface of a part that has to agree with other parts of its model."""

    def check_model(self, model: Any) -> None:
        """Raise ConfigError unless this part fits the other parts of `model`, in which it is."""


def check_parts(model: nn.Module) -> None:
    """Let each part of `model` that has to agree with others check them; call it once all are there."""
    for part in model.modules():
        if isinstance(part, MustAgree):
            part.check_model(model)


def check_classes(num_classes: int, key: str, head: nn.Module) -> None:
    """Raise ConfigError if the part at `key` has another number of classes than the head, where that names one: a label
    would be out of range, which a device reports late, if at all.
    """
    of_head = getattr(head, "num_classes", num_classes)
    if num_classes != of_head:
        raise ConfigError(
            f"{key}.num_classes is {num_classes}, but model.head.num_classes is {of_head}: set model.head.num_classes "
            "only; the configs copy it to the other parts."
        )


class ReadsLogits(nn.Module):
    """Base of the losses, costs and weightings. `softmax` is the kind of logits that the part reads: True for K classes
    and "no object", False for K sigmoid classes, None for either or none.
    """

    softmax: bool | None = None


def check_logits(part: nn.Module | None, name: str, preds: "Predictions") -> None:
    """Raise ConfigError if `part`, any module, reads the other kind of logits than the set `name` has: every number
    would be finite, and wrong. A part without `softmax` as in `ReadsLogits` reads either.
    """
    softmax = getattr(part, "softmax", None)
    if isinstance(softmax, bool) and softmax != preds.softmax:
        kinds = {True: 'softmax logits (K classes and "no object")', False: "sigmoid logits (K classes)"}
        raise ConfigError(
            f"{type(part).__name__} reads {kinds[softmax]}, but the set '{name}' has {kinds[preds.softmax]}: change "
            f"model.{preds.origin}, or the losses and costs that do not fit it."
        )
