"""Threads on CPUs that other programs use as well: how many there are, and how they wait for each other.

PyTorch's threads meet at the end of every operation. GNU's OpenMP, which PyTorch's wheels for Linux have, lets a thread
that waits spin for some milliseconds, which is fastest while every thread has a CPU. Beside another program, the thread
that spins holds the CPU that the awaited one needs, and a training step takes three times as long and more. OpenMP lets
its threads sleep at once as soon as a process has more of them than CPUs (its manual, under GOMP_SPINCOUNT): so another
team of threads, without work, makes them do so while others use the CPUs. As many threads as before compute, so that
the numbers stay the same to the last bit; fewer threads would add in another order.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from align_detr.cpus import affinity, idle_seconds, usable_cpus

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_PERIOD = 1.0  # seconds between looks: some ten times what Linux counts time in, and few steps of a small detector
_SHORT, _ENOUGH = 0.4, 0.2  # CPUs that the threads lack when they begin to sleep, and when they spin again

logger = logging.getLogger(__name__)


def limit_threads(processes: int = 1) -> None:
    """Let PyTorch start at most one thread per usable CPU, which `processes` like this one share.

    Not if the environment sets a number of threads. PyTorch follows the affinity, but not the quota of a container.
    """
    if any(os.environ.get(name) for name in COUNTS):
        return
    threads = max(1, usable_cpus() // processes)
    if threads < torch.get_num_threads():
        logger.info("PyTorch uses %d threads, as many as there are CPUs to use.", threads)
        torch.set_num_threads(threads)


@contextmanager
def sharing_cpus() -> Iterator[None]:
    """Let threads that wait for each other sleep while other programs use the CPUs, and spin while they do not.

    Nothing is done where the environment says how to wait, with one thread, and where Linux's counters are not there.
    """
    threads = torch.get_num_threads()
    if threads == 1 or any(os.environ.get(name) for name in WAITS) or idle_seconds(affinity()) is None:
        yield
        return
    watch = Watch(threads)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


class IdleTeam:
    """A second team of OpenMP's threads, without work, as long as the thread that has started it lives."""

    def __init__(self) -> None:
        started, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(started,), daemon=True, name="idle_team")
        self._thread.start()
        started.wait()

    def _hold(self, started: threading.Event) -> None:
        try:
            torch.zeros(1 << 17).add_(1)  # enough numbers to be shared among threads
        finally:
            started.set()
        self._ended.wait()

    def end(self) -> None:
        """End the threads."""
        self._ended.set()
        self._thread.join()


class Watch(threading.Thread):
    """A thread that looks at the CPUs every second, and keeps an idle team while they do not suffice for `threads`."""

    def __init__(self, threads: int) -> None:
        super().__init__(daemon=True, name="watch_cpus")
        self.threads = threads
        self.team: IdleTeam | None = None
        self._told = False
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until `stop` is called."""
        before = _now()
        while not self._stopped.wait(_PERIOD):
            now = _now()
            self.decide((now[1] - before[1]) / (now[0] - before[0]))
            before = now
        self._release()

    def stop(self) -> None:
        """End this thread and its team."""
        self._stopped.set()
        self.join()

    def decide(self, available: float) -> None:
        """Let the threads sleep or spin by the number of CPUs that were idle or this process's own."""
        if self.team is None and available < self.threads - _SHORT:
            self.team = IdleTeam()
            logger.log(
                logging.DEBUG if self._told else logging.INFO,
                "Other programs, or workers that read data, leave %.1f CPUs to the %d threads of this process, which "
                "now sleep while they wait: steps take longer.",
                available,
                self.threads,
            )
            self._told = True
        elif self.team is not None and available > self.threads - _ENOUGH:
            self._release()
            logger.debug("The %d threads have their CPUs again.", self.threads)

    def _release(self) -> None:
        if self.team is not None:
            self.team.end()
            self.team = None


def _now() -> tuple[float, float]:
    """Return the clock, and the seconds that the CPUs were idle or this process's own."""
    return time.perf_counter(), (idle_seconds(affinity()) or 0.0) + time.process_time()
