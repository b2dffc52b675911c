"""TSP's schedules: 1,000 iterations of warm-up, two drops by ten."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig


def warm_multi_step(max_iter: int, steps: list[int], warmup: int = 1000) -> DictConfig:
    """Raise the rate from a thousandth in `warmup` iterations, drop it by ten at each of `steps`; `max_iter` in all."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=steps, num_updates=max_iter),
        warmup_factor=0.001,
        warmup_length=warmup / max_iter,
        warmup_method="linear",
    )


# The official 270,000 iterations of 16 images are 36.8 epochs of COCO's images with objects: "36 epochs".
step_36ep = warm_multi_step(270_000, [180_000, 240_000])
# Not published: eight times the 1x schedule, with its usual drops and its short last part.
step_96ep = warm_multi_step(720_000, [640_000, 690_000])
