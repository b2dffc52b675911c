"""Align-DETR (Cai et al. 2023) as a change to the config of any detector with sigmoid classes."""

import inspect
from collections.abc import Callable
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from align_detr.errors import ConfigError
from align_detr.modeling.losses import IABCELoss
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import MAIN, PROPOSED

CLASS = "class"  # the name of the class loss
UNNAMED = "(no name)"


def align(model: DictConfig, *, copies: int = 3, alpha: float = 0.25, gamma: float = 2.0, tau: float = 1.5) -> None:
    """Give the config `model` the IoU-aware class loss, the prime-sample weighting, and `copies` of each object.

    The copies hold in every decoder layer but the last, and among the encoder's proposals if there are any. The
    defaults are the paper's k, alpha and tau; its released configs have k = 2. The weight of the class loss and the
    copies of other sets (a hybrid branch's) stay as they are.
    """
    criterion = model.criterion
    weight = class_loss_of(criterion).weight
    set_class_loss(criterion, L(IABCELoss)(weight=weight, alpha=alpha, gamma=gamma))
    criterion.weighting = L(PrimeSampleWeighting)(alpha=alpha, tau=tau)
    layers = {MAIN: [copies] * (model.decoder.num_layers - 1) + [1]}
    encoder = {PROPOSED: copies} if model.get("proposals") is not None else {}
    criterion.matcher.copies = {**(criterion.matcher.get("copies") or {}), **layers, **encoder}


def class_loss_of(criterion: DictConfig) -> DictConfig:
    """Return the class loss of a criterion's config: the one that reports `loss_class`.

    Raise ConfigError unless there is exactly one.
    """
    return criterion.losses[_index_of_class_loss(criterion)]


def set_class_loss(criterion: DictConfig, loss: DictConfig) -> None:
    """Replace the class loss of a criterion's config. Raise ConfigError unless there is exactly one."""
    criterion.losses[_index_of_class_loss(criterion)] = loss


def _index_of_class_loss(criterion: DictConfig) -> int:
    names = [_name_of(loss) for loss in criterion.losses]
    if names.count(CLASS) != 1:
        raise ConfigError(
            f"The names of criterion.losses are {', '.join(names)}, but exactly one must be '{CLASS}': give the class "
            f"loss name='{CLASS}', or replace it by its index."
        )
    return names.index(CLASS)


def _name_of(loss: DictConfig) -> str:
    """Return the name of a loss's config, or the one that its class gives it; UNNAMED if a required one is missing."""
    if "name" in loss:
        return loss.name
    target: str | Callable[..., Any] = loss["_target_"]  # a name in a config that was saved
    made_by = locate(target) if isinstance(target, str) else target
    parameter = inspect.signature(made_by).parameters.get("name")
    if parameter is not None and parameter.default is parameter.empty:
        return UNNAMED
    if parameter is not None and isinstance(parameter.default, str):
        return parameter.default
    return str(getattr(instantiate(loss), "name", UNNAMED))  # the constructor decides
