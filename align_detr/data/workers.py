"""Worker processes of a loader: what an image is drawn from, and when a worker ends."""

import os
import random
import signal
import threading
import time

import numpy as np
import torch
from torch.multiprocessing import parent_process

_PERIOD = 1.0  # seconds between looks at the parent


def start_worker(worker_id: int) -> None:
    """Prepare a worker: it leaves signals to its parent, and ends within seconds of it, also if that was killed.

    Ctrl-C and the signals of schedulers reach all processes of a group; the parent needs its workers to finish the
    step. A worker whose parent is gone would otherwise wait for ever for someone to empty a full queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    follow_parent()


def follow_parent(grace: float = 0.0) -> None:
    """End this process, without its cleaning up, `grace` seconds after the process that started it through Python.

    A SIGTERM of that process ends it at once, that of another becomes a SIGUSR1, where the system tells them apart. To
    be called before other threads start.
    """
    parent = parent_process()
    if parent is None or parent.pid is None or os.name != "posix":
        return
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(parent.pid,), daemon=True, name="obey_parent").start()
    threading.Thread(target=_outlive, args=(parent.pid, grace), daemon=True, name="follow_parent").start()


def follow_launcher(grace: float) -> None:
    """End this process, without its cleaning up, `grace` seconds after the one that has started it, such as torchrun.

    torchrun ends its processes itself, unless it is killed.
    """
    if os.name == "posix":
        threading.Thread(target=_outlive, args=(os.getppid(), grace), daemon=True, name="follow_launcher").start()


def _outlive(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(_PERIOD)
    time.sleep(grace)
    os._exit(1)


def _obey(parent: int) -> None:
    """Wait for SIGTERMs: without a time limit, as Python's sigtimedwait may return a signal that nobody has sent."""
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os._exit(128 + signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)


def seed_image(seed: int, position: int) -> None:
    """Seed Python's, numpy's and torch's generators for the image at `position` of the stream of images."""
    numbers = np.random.SeedSequence((seed % 2**63, position)).generate_state(3)
    np.random.seed(numbers[0])
    random.seed(int(numbers[1]))
    torch.default_generator.manual_seed(int(numbers[2]))  # torch.manual_seed would look at CUDA as well
