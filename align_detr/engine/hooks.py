"""Hooks of the trainer beyond detectron2's own."""

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine import HookBase, hooks

from align_detr.engine.ema import ModelEMA


class UpdateEMA(HookBase):
    """Update of the moving average of the weights after every step."""

    def __init__(self, *, ema: ModelEMA) -> None:
        self.ema = ema

    def after_step(self) -> None:
        """Fold the weights into their average."""
        self.ema.update()


class WeightsWriter(HookBase):
    """Writing of the evaluated weights after training has succeeded; `function` gets the number of iterations."""

    def __init__(self, *, function: Callable[[int], None]) -> None:
        self.function = function

    def after_train(self) -> None:
        """Write the weights unless training has failed."""
        if self.trainer.iter >= self.trainer.max_iter:
            self.function(self.trainer.max_iter)


class GroupLRScheduler(hooks.LRScheduler):
    """detectron2's scheduler hook, which logs one rate as "lr", and every group's rate as "lr_<group name>" as well.

    The rates follow from the iteration alone, so there is no state to save: a resumed run computes them again.
    """

    def after_step(self) -> None:
        """Log the rates of this step, then set those of the next."""
        rates = {f"lr_{name}": lr for name, lr in group_rates(self._optimizer).items()}
        self.trainer.storage.put_scalars(smoothing_hint=False, **rates)
        super().after_step()

    def state_dict(self) -> dict[str, Any]:
        """Return {}."""
        return {}


class EvaluationHook(hooks.EvalHook):
    """Evaluation every `period` iterations (0: never in between) and once after training has succeeded.

    detectron2 also evaluates after a failure in the last iteration, and only its newer versions can choose.
    `function` returns a nested dict of numbers, logged as "bbox/AP" and so on; `results` is the last one ({} before),
    of `rounds` evaluations. Training that another hook ends just after an evaluation is not evaluated again.
    Both arguments may be positional, as those of detectron2's EvalHook.
    """

    def __init__(self, period: int, function: Callable[[], Mapping[str, Any]]) -> None:
        self.results: Mapping[str, Any] = {}
        self.rounds = 0
        self._last = -1  # iterations done at the last evaluation

        def evaluate() -> Mapping[str, Any]:
            self.results = function()
            self.rounds += 1
            return self.results

        super().__init__(period, evaluate)

    def after_step(self) -> None:
        """Evaluate if the period is over, but for the last iteration."""
        rounds = self.rounds
        super().after_step()
        if self.rounds > rounds:
            self._last = self.trainer.iter + 1

    def after_train(self) -> None:
        """Evaluate unless training has failed."""
        if self.trainer.max_iter <= self.trainer.iter != self._last:
            self._do_eval()
        del self._func  # it holds the model


def group_rates(optimizer: Any) -> dict[str, float]:
    """Return {group name: learning rate}; groups without a name are numbered, equal names counted."""
    rates: dict[str, float] = {}
    for index, group in enumerate(optimizer.param_groups):
        name = group.get("name", f"group{index}")
        if name in rates:
            name = f"{name}_{index}"
        rates[name] = group["lr"]
    return rates
