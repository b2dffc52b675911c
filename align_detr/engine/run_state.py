"""What a checkpoint holds so that a resumed run is the uninterrupted one, beside weights, optimizer and loss scale."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from align_detr.engine.generators import read_generators, write_generators

logger = logging.getLogger(__name__)

WINDOW = 20  # iterations over which the writers take medians
_TIMES = ("time", "data_time")  # of the machine, measured anew


class RunState:
    """Generators of every process, recent numbers, the last line of metrics.json, and the seed of the data's order.

    `capture` on every process, before the main process saves; a checkpoint without a capture holds only the seed.
    """

    def __init__(self, loader: object) -> None:
        self.order_seed = getattr(loader, "order_seed", None)
        self._captured: dict[str, Any] = {}

    def capture(self, storage: EventStorage, *, step_is_finished: bool, written: int) -> None:
        """Take up the state at the end of a step, or before the hooks that follow the checkpoint's.

        `written` is the last iteration of metrics.json.
        """
        self._captured = {
            "generators": comm.gather(read_generators()),
            "numbers": _read_numbers(storage),
            "step_is_finished": step_is_finished,
            "written": written,
        }

    def clear(self) -> None:
        """Forget what was captured, which holds for one step."""
        self._captured = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as a checkpoint holds it."""
        return {"order_seed": self.order_seed, **self._captured}


def continued(checkpoint: Mapping[str, Any], start_iter: int) -> dict[str, Any]:
    """Return the `RunState` in the content of a checkpoint ({}: a new run) that continues at `start_iter`.

    Of a checkpoint without it only the lines of metrics.json are kept; of one whose iterations count otherwise now,
    those of its steps, as "recounted": the last of them, and the iterations of its epochs.
    """
    if not checkpoint:
        return {}
    iteration, state = checkpoint["trainer"]["iteration"], dict(checkpoint.get("run", {}))
    order_seed = state.get("order_seed")
    if start_iter == iteration + 1:
        return {**state, "written": state.get("written", iteration), "order_seed": order_seed}
    recounted = (iteration, checkpoint["length"]["iterations_per_epoch"])
    return {"written": start_iter - 1, "order_seed": order_seed, "recounted": recounted}


def start_data(loader: object, start_iter: int, max_iter: int, saved: Mapping[str, Any]) -> None:
    """Let a loader begin with the batch of iteration `start_iter` of `max_iter`; say so if it cannot."""
    if hasattr(loader, "plan"):
        loader.plan(max_iter)
    if hasattr(loader, "start_at"):
        loader.start_at(start_iter, saved.get("order_seed"))
    elif start_iter:
        logger.warning("%s cannot begin at an iteration: its images differ from now on.", type(loader).__name__)


class Continue(HookBase):
    """The step that a checkpoint was saved in, ended in a resumed run: generators, numbers, and the hooks that follow.

    Evaluation and writing come after saving, so that nothing is lost if they fail. They are made again, as the
    interrupted run may not have come to them. `saved` is the `RunState` of the checkpoint, `hooks` are those that
    follow the checkpoint's. Stands last.
    """

    def __init__(self, saved: Mapping[str, Any], hooks: Sequence[HookBase]) -> None:
        self.saved = saved
        self.hooks = hooks

    def before_train(self) -> None:
        """Restore generators and numbers, and end the step before the first."""
        if "numbers" not in self.saved:
            return
        trainer, storage = self.trainer, self.trainer.storage
        start = trainer.iter
        _write_numbers(storage, self.saved["numbers"])
        states = self.saved["generators"]
        if len(states) == comm.get_world_size():
            write_generators(states[comm.get_rank()])
        else:
            logger.warning("The checkpoint is of %d processes: generators are seeded anew.", len(states))
        if not self.saved["step_is_finished"]:
            trainer.iter = storage.iter = start - 1
            for hook in self.hooks:
                hook.after_step()
        trainer.iter = storage.iter = start


def _read_numbers(storage: EventStorage) -> dict[str, Any]:
    hints = storage.smoothing_hints()
    return {
        name: {"smoothed": bool(hints[name]), "values": [(float(v), int(i)) for v, i in history.values()[-WINDOW:]]}
        for name, history in storage.histories().items()
        if name not in _TIMES
    }


def _write_numbers(storage: EventStorage, numbers: Mapping[str, Any]) -> None:
    for name, saved in numbers.items():
        for value, iteration in saved["values"]:
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=saved["smoothed"])
