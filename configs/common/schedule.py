"""Learning rate schedules in epochs; they depend on the fraction of training done, not on the data."""

from collections.abc import Sequence

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig

from align_detr.engine import flat_cosine_with_warmup


def multi_step(epochs: int, drops: Sequence[int], gamma: float = 0.1) -> DictConfig:
    """Multiply the rate by `gamma` after each epoch of `drops` (ascending), `epochs` in all, no warm-up."""
    values = [gamma**i for i in range(len(drops) + 1)]
    return L(MultiStepParamScheduler)(values=values, milestones=list(drops), num_updates=epochs)


def cosine_with_warmup(epochs: int, warmup_epochs: float, final: float = 0.0) -> DictConfig:
    """Linear from 0.001 of the rate over `warmup_epochs`, then half a cosine that ends at `final` of the rate."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=final),
        warmup_factor=0.001,
        warmup_length=warmup_epochs / epochs,
        warmup_method="linear",
    )


step_500ep = multi_step(500, [400])
step_300ep = multi_step(300, [200])
step_150ep = multi_step(150, [100])
step_50ep = multi_step(50, [40])
step_36ep = multi_step(36, [30])
step_24ep = multi_step(24, [20])
step_12ep = multi_step(12, [11])
dense_12ep = flat_cosine_with_warmup(12, warmup_epochs=0.1, flat_until=6, constant_from=11)
