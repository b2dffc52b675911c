"""Checkpoints during training: when they are saved, and which are kept."""

from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils import comm

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.engine.run_state import RunState
from align_detr.errors import ConfigError


class Checkpoints(HookBase):
    """A checkpoint after every `period` iterations (0: none in between) and after the last, on every process.

    The newest `max_to_keep` of those with a number stay (None or 0: all), also of the runs before a resumption.
    `written` returns the last iteration in metrics.json.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: RunState,
        *,
        period: int,
        max_to_keep: int | None = None,
        written: Callable[[], int],
    ) -> None:
        if max_to_keep is not None and max_to_keep < 0:
            raise ConfigError(f"train.checkpointer.max_to_keep={max_to_keep} must not be negative: 0 keeps all.")
        self.checkpointer = checkpointer
        self.state = state
        self.period = period
        self.max_to_keep = max_to_keep
        self.written = written

    def after_step(self) -> None:
        """Save if the period is over, and after the last iteration."""
        done = self.trainer.iter + 1
        names = [f"model_{self.trainer.iter:07d}"] if self.period > 0 and done % self.period == 0 else []
        if done >= self.trainer.max_iter:
            names.append("model_final")
        if names:
            self.save(names)

    def save(self, names: list[str] | None = None, *, step_is_finished: bool = False) -> str:
        """Save checkpoints on the main process (None: one named after the iteration); return the path of the last.

        `step_is_finished`: no hook follows.
        """
        names = names or [f"model_{self.trainer.iter:07d}"]
        self.state.capture(self.trainer.storage, step_is_finished=step_is_finished, written=self.written())
        try:
            for name in names:
                self.checkpointer.save(name, iteration=self.trainer.iter)
        finally:
            self.state.clear()
        if comm.is_main_process():
            self._remove_old()
        return f"{self.checkpointer.save_dir}/{names[-1]}.pth"

    def _remove_old(self) -> None:
        if self.max_to_keep:
            present = f"model_{self.trainer.iter:07d}.pth"  # a damaged one may have a higher number
            for path in [p for p in self.checkpointer.numbered() if p.name <= present][: -self.max_to_keep]:
                path.unlink(missing_ok=True)
