"""The flat-cosine schedule of the learning rate."""

import math

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig

from align_detr.checks import check_number, check_share
from align_detr.errors import ConfigError


class FlatCosine(ParamScheduler):
    """The whole rate up to the share `flat_until` of training, half a cosine down to `final` of it at the share
    `constant_from`, and `final` to the end.
    """

    def __init__(self, *, flat_until: float, constant_from: float, final: float) -> None:
        self.flat_until = check_share(flat_until, "lr_multiplier.flat_until")
        self.constant_from = check_share(constant_from, "lr_multiplier.constant_from")
        self.final = check_number(final, "lr_multiplier.final", 0)
        if flat_until >= constant_from:
            raise ConfigError(
                f"lr_multiplier.flat_until is {flat_until} and constant_from is {constant_from}, which leave no time "
                "for the cosine: set constant_from to a later share."
            )

    def __call__(self, where: float) -> float:
        """Return the multiplier of the rate after the share `where` of training."""
        share = (where - self.flat_until) / (self.constant_from - self.flat_until)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2


def flat_cosine_with_warmup(
    epochs: float, warmup_epochs: float, flat_until: float, constant_from: float, final: float = 0.5
) -> DictConfig:
    """Return the config of a schedule: linear from 0.001 of the rate over `warmup_epochs`, the rate up to epoch
    `flat_until`, half a cosine to `final` of it at epoch `constant_from`, and `final` to the end, as dense one-to-one
    data has it (DEIM).
    """
    return L(WarmupParamScheduler)(
        scheduler=L(FlatCosine)(flat_until=flat_until / epochs, constant_from=constant_from / epochs, final=final),
        warmup_factor=0.001,
        warmup_length=warmup_epochs / epochs,
        warmup_method="linear",
    )
