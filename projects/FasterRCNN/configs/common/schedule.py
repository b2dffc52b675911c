"""detectron2's long schedules: 1,000 iterations of warm-up, two drops by ten, 60,000 and 20,000 before the end."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig


def multiple(times: int) -> DictConfig:
    """Return the schedule of `times` (at least 3) 90,000 iterations of 16 images; 3x is about 36 epochs of COCO."""
    end = times * 90_000
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=[end - 60_000, end - 20_000], num_updates=end
        ),
        warmup_factor=0.001,
        warmup_length=1000 / end,
        warmup_method="linear",
    )


step_36ep = multiple(3)
step_108ep = multiple(9)
