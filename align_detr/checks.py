"""Checks of settings, of annotations, and of parts that must fit each other; every wrong number reads the same."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from detectron2.structures import Instances
from torch import nn

from align_detr.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from align_detr.structures import Predictions


def check_number(value: float, key: str, least: float | None = None) -> float:
    """Return `value`. Raise ConfigError unless it is a finite number, of at least `least`."""
    if not is_number(value) or (least is not None and value < least):
        wanted = "a finite number" if least is None else f"a finite number of at least {least}"
        raise ConfigError(f"{key} is {value!r}, but must be {wanted}: set it to a number.")
    return value


def check_share(value: float, key: str) -> float:
    """Return `value`. Raise ConfigError outside [0, 1], where a weight or an exponent would be negative."""
    return check_between(value, key, 0, 1)


def check_between(
    value: float, key: str, low: float, high: float, remedy: str = "set it to a number between them"
) -> float:
    """Return `value`. Raise ConfigError unless it is a number in [low, high]; `remedy` ends the sentence."""
    if not is_number(value) or not low <= value <= high:
        raise ConfigError(f"{key} is {value!r}, but must lie in [{low}, {high}]: {remedy}.")
    return value


def check_count(value: int, key: str, least: int = 1, remedy: str = "set it to such a number") -> int:
    """Return `value`. Raise ConfigError unless it is a whole number of at least `least`; `remedy` ends the sentence."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key} is {value!r}, but must be a whole number of at least {least}: {remedy}.")
    return value


def check_flag(value: bool, key: str) -> bool:
    """Return `value`. Raise ConfigError unless it is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {value!r}, but must be True or False: set it to one of them.")
    return value


def check_choice(value: str, key: str, choices: Sequence[str]) -> str:
    """Return `value`. Raise ConfigError unless it is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{key} is {value!r}, but must be one of {', '.join(choices)}: set it to one of them.")
    return value


def check_texts(value: Sequence[str], key: str, example: str) -> list[str]:
    """Return `value` as a list. Raise ConfigError unless it is a list of texts; one text alone is none."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{key} is {value!r}, but must be a list of texts: write it as {key}=[{example!r}].")
    return list(value)


def require_finite(model: nn.Module, path: str) -> None:
    """Raise ConfigError for a tensor of `model` that is not finite, as the file of weights `path` gave it.

    Tensors without numbers, on the meta device, pass.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.is_meta and not bool(torch.isfinite(value).all()):
            raise ConfigError(f"{path} gives '{name}' a number that is NaN or infinite: take another checkpoint.")


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


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
