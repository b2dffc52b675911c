"""The lock of an output folder, which one training at a time holds; the system releases it when its process ends."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm

from align_detr.checkpoint.files import disk_problems
from align_detr.errors import ConfigError

try:
    import fcntl
except ImportError:  # on systems other than POSIX's
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".training.lock"
_WAIT = 10.0  # seconds in which the processes of a training that was killed end
_LOOK = 0.2  # seconds between tries

logger = logging.getLogger(__name__)
_held: set[int] = set()  # handles of this process's locks


@contextlib.contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Keep other trainings out of an output folder in the `with` block; the main process holds the lock.

    Raise ConfigError, on every process, if another training holds it and does not end within seconds. Where there are
    no locks, go on without.
    """
    handle, refusal = _acquire(Path(folder)) if comm.is_main_process() else (None, "")
    try:
        if refusal := comm.all_gather(refusal)[0]:
            raise ConfigError(refusal)
        yield
    finally:
        if handle is not None:
            _held.discard(handle)
            os.close(handle)


def _acquire(folder: Path) -> tuple[int | None, str]:
    """Return the handle of the lock (None: there is none), and the sentence on the training that has it or ""."""
    path = folder / LOCK_FILE
    with disk_problems(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return None, ""
    with disk_problems(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = _lock(handle)
    except OSError as error:  # of a file system without locks
        os.close(handle)
        logger.info("%s cannot be locked against another training (%s).", folder, error.strerror)
        return None, ""
    if not locked:
        holder = os.pread(handle, 500, 0).decode(errors="replace").strip() or "a process that is not known"
        os.close(handle)
        return None, f"Another training writes to {folder} ({holder}): wait for it or set train.output_dir."
    _held.add(handle)
    with contextlib.suppress(OSError):  # a full disk; the name is of use for a sentence only
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle, ""


def _lock(handle: int) -> bool:
    """Take the lock as soon as it is free; return whether it is held. Raise OSError where there are no locks."""
    end = time.monotonic() + _WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
        time.sleep(_LOOK)


def _close_in_child() -> None:
    """Close the locks in a new process: workers of a loader outlive a training that is killed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
