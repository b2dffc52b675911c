"""Worker processes of a loader that die or hang: one sentence, with the images that they were reading."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, get_worker_info

from align_detr.errors import EnvironmentProblem

_NONE = -1
_MOST_WORKERS = 1024


class WorkerFault(EnvironmentProblem):
    """A worker process of a loader that has died or that sends nothing."""


class CurrentRecords(Dataset):
    """Records of a data set; which of them each worker process has taken last is known to all processes."""

    def __init__(self, records: Dataset | Sequence[dict[str, Any]]) -> None:
        self.records = records
        self._last = torch.full((_MOST_WORKERS,), _NONE).share_memory_()

    def __len__(self) -> int:
        return len(self.records)  # type: ignore[arg-type]  # torch's Dataset promises no length

    def __getitem__(self, index: int) -> Any:
        worker = get_worker_info()
        if worker is not None and worker.id < _MOST_WORKERS:
            self._last[worker.id] = index
        return self.records[index]

    def file_of(self, worker: int) -> str | None:
        """Return the image file that a worker has taken last, or None if it has taken none."""
        index = int(self._last[worker]) if worker < _MOST_WORKERS else _NONE
        return None if index == _NONE else str(self.records[index].get("file_name"))


@dataclass
class _Watched:
    """A DataLoader's iterator, which has `_workers`, what they read, and the seconds that it waits for them."""

    iterator: Any
    records: CurrentRecords | None
    timeout: float


_watched: list[_Watched] = []  # the iterators in use


@contextmanager
def watched(iterator: Any, records: CurrentRecords | None, timeout: float) -> Iterator[None]:
    """Raise WorkerFault, in place of torch's error, if a worker of `iterator` is dead or silent in the `with` block."""
    _watched.append(one := _Watched(iterator, records, timeout))
    try:
        with worker_faults():
            try:
                yield
            except (ConnectionError, EOFError) as error:  # of a batch that was on its way
                if _has_dead(iterator):
                    raise WorkerFault(_describe_death()) from error
                raise
    finally:
        _watched.remove(one)


def _has_dead(iterator: Any) -> bool:
    """Return whether a worker has died or is about to; the wait for it may be interrupted by torch's error."""
    workers = getattr(iterator, "_workers", ())
    for worker in workers:
        worker.join(1.0)
    return any(worker.exitcode for worker in workers)


@contextmanager
def worker_faults() -> Iterator[None]:
    """Raise WorkerFault in place of torch's error of a dead or silent worker of any watched iterator.

    A worker's death interrupts whatever its parent is doing, not only the wait for a batch.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if text.startswith("DataLoader timed out"):
            raise WorkerFault(_describe_silence()) from error
        if text.startswith("DataLoader worker"):
            raise WorkerFault(_describe_death()) from error
        raise


def _describe_silence() -> str:
    """Return the sentence on workers that send nothing, of the iterator that began last: that is waited for."""
    one = _watched[-1] if _watched else _Watched(None, None, 0)
    reading = _reading(one.records, range(len(getattr(one.iterator, "_workers", ()))))
    return (
        f"The loader has sent no batch for {one.timeout:g} seconds (train.data_timeout){reading}: check the disk and "
        "the image files, or raise train.data_timeout."
    )


def _describe_death() -> str:
    """Return the sentence on the first dead worker of the iterators in use."""
    ended, reading = "ended", ""
    for one in _watched:
        for index, worker in enumerate(getattr(one.iterator, "_workers", ())):
            worker.join(0.1)  # its exit may not be known yet
            if worker.exitcode not in (None, 0):
                ended, reading = _describe_exit(worker.exitcode), _reading(one.records, [index])
    return (
        f"A worker process of the loader {ended}{reading}: check that image and the free memory, shared memory "
        "(/dev/shm) included, or set num_workers=0 in dataloader.train and dataloader.test to see the error."
    )


def _reading(records: CurrentRecords | None, workers: Sequence[int]) -> str:
    files = [] if records is None else [file for file in map(records.file_of, workers) if file is not None]
    return f" while reading {', '.join(files)}" if files else ""


def _describe_exit(code: int) -> str:
    """Return how a process with this exit code of multiprocessing has ended: negative for a signal."""
    if code >= 0:
        return f"has exited with status {code}"
    known = {each.value: each.name for each in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"
