"""The end of training on a signal: the step is finished, a checkpoint saved, and the run can be resumed."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from align_detr.engine.checkpointing import Checkpoints
from align_detr.errors import EXIT_INTERRUPTED, AlignDetrError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_ONE = 1.0  # seconds in which launchers and terminals send the same signal more than once


class TrainingInterrupted(AlignDetrError):
    """Training was ended by a signal; its checkpoint is saved, and `--resume` continues."""

    exit_status = EXIT_INTERRUPTED


class Interruption(HookBase):
    """After Ctrl-C, SIGTERM or SIGUSR1: finish the step, save on the main process, raise TrainingInterrupted.

    A second signal ends at once, without saving. One process that is signalled ends all. Stands behind all hooks that
    write. In a thread other than the main one, signals keep their meaning.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received: int | None = None
        self._time = 0.0
        self._before: dict[int, Any] = {}

    def before_train(self) -> None:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def after_step(self) -> None:
        """Save and raise if a process was signalled."""
        received = next((number for number in comm.all_gather(self.received) if number is not None), None)
        if received is None:
            return
        path = self.checkpoints.save(step_is_finished=True)
        comm.synchronize()  # a process that leaves earlier may end the one that saves
        done, whole = self.trainer.iter + 1, self.trainer.max_iter
        raise TrainingInterrupted(
            f"{_name(received)}: training stops after iteration {done} of {whole}. {_go_on(path)}"
        )

    def after_train(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._time = number, time.monotonic()
            if self.trainer.iter >= self.trainer.max_iter:  # only the last evaluation is left
                path = f"{self.checkpoints.checkpointer.save_dir}/model_final.pth"
                raise TrainingInterrupted(f"{_name(number)}: training is done, its evaluation is not. {_go_on(path)}")
            if comm.is_main_process():
                _say(f"{_name(number)}: finishing the step, then saving; a second one ends at once.\n")
        elif time.monotonic() - self._time > _ONE:
            self.after_train()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _say(text: str) -> None:
    """Write to standard error without the buffers and locks that the interrupted code may hold."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _go_on(path: str) -> str:
    return f"{path} is saved: go on with --resume (in Python resume=True)."
