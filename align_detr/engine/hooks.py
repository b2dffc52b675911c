"""Hooks of the trainer beyond detectron2's own."""

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine import HookBase, hooks

from align_detr.engine.ema import ModelEMA


class UpdateEMA(HookBase):
    """Fold the weights into their moving average after every step."""

    def __init__(self, *, ema: ModelEMA) -> None:
        self.ema = ema

    def after_step(self) -> None:
        self.ema.update()


class GroupLRScheduler(hooks.LRScheduler):
    """detectron2's scheduler hook, which logs one rate as "lr"; this also logs every group's as "lr_<group name>".

    The rates follow from the iteration alone, so there is no state to save: a resumed run computes them anew.
    """

    def after_step(self) -> None:
        rates = {f"lr_{name}": lr for name, lr in group_rates(self._optimizer).items()}
        self.trainer.storage.put_scalars(smoothing_hint=False, **rates)
        super().after_step()

    def state_dict(self) -> dict[str, Any]:
        return {}


class EvaluationHook(hooks.EvalHook):
    """Evaluate every `period` iterations (0: never in between) and once after training has come to its end.

    detectron2 also evaluates after a failure in the last iteration, and only its newer versions can choose: this
    evaluates after success only. `function` returns a nested dict of numbers, logged as "bbox/AP" and so on.
    Both arguments may be positional, as those of detectron2's EvalHook.
    """

    def __init__(self, period: int, function: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(period, function)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        del self._func  # it holds the model and the configuration


def group_rates(optimizer: Any) -> dict[str, float]:
    """Return {group name: learning rate}; groups without a name are numbered, equal names counted."""
    rates: dict[str, float] = {}
    for index, group in enumerate(optimizer.param_groups):
        name = group.get("name", f"group{index}")
        if name in rates:
            name = f"{name}_{index}"
        rates[name] = group["lr"]
    return rates
