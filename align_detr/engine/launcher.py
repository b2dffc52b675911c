"""The launcher: it starts the processes of one machine, together with the launchers of others, and waits for them."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch.distributed as dist
import torch.multiprocessing as mp

from align_detr.data.workers import follow_parent
from align_detr.engine.distributed import TIMEOUT, ProcessRank, check_device, membership
from align_detr.engine.lost import LostContact, ProcessDied, describe_exit, describe_machine
from align_detr.engine.machines import MachineLost, Machines, Plan
from align_detr.engine.meeting import meet, read_address
from align_detr.errors import EXIT_INTERRUPTED, EXIT_KEYBOARD, AlignDetrError, ConfigError

_LOOK = 0.5  # seconds between looks at the other machines
_GRACE = 10.0  # seconds for processes to find out themselves that another machine has failed
_NOTICE = 3.0  # seconds in which another machine says why its processes are gone


class EndedAtOnce(AlignDetrError):
    """A signal has ended the processes before training took it over, or a second one later."""

    exit_status = EXIT_INTERRUPTED


@dataclass(frozen=True)
class _Work:
    """What the processes of a machine are to do, where they meet, and the folder of their errors."""

    function: Callable[..., None]
    args: tuple[Any, ...]
    device: str
    plan: Plan
    address: str
    timeout: float
    folder: Path


def spawn(
    function: Callable[..., None],
    args: tuple[Any, ...],
    *,
    device: str,
    local_size: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    timeout: float = TIMEOUT,
) -> None:
    """Run `function(*args)` in `local_size` new processes of this machine, joined with those of the other machines.

    Machines and processes wait for each other for at most `timeout` seconds. Raise ConfigError for several machines
    without an address or with different plans, EnvironmentProblem for missing GPUs, machines and ports, MachineLost and
    ProcessDied for what is gone later, and torch's ProcessRaisedException if a process fails (the others are then
    ended).
    """
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank is {machine_rank}, of {num_machines} machines: number them from 0 to {num_machines - 1}."
        )
    if num_machines > 1 and dist_url == "auto":
        raise ConfigError("--num-machines above 1 needs --dist-url tcp://HOST:PORT, the address of machine 0.")
    check_device(device, local_size)
    plan = Plan(num_machines, machine_rank, local_size, socket.gethostname())
    stores: list[dist.TCPStore] = []  # open until the processes have ended

    def open_store() -> int:
        stores.append(dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False))
        return int(stores[0].port)

    with tempfile.TemporaryDirectory() as folder:
        if num_machines == 1:
            work = _Work(function, args, device, plan, f"tcp://127.0.0.1:{open_store()}", timeout, Path(folder))
            _run(work, None)
            return
        machines, port = meet(plan, dist_url, timeout, open_store)
        host, _ = read_address(dist_url)
        with machines:
            _run(_Work(function, args, device, plan, f"tcp://{host}:{port}", timeout, Path(folder)), machines)


def _run(work: _Work, machines: Machines | None) -> None:
    """Start the processes and wait for them, and for the other machines' failures."""
    context = mp.spawn(_worker, nprocs=work.plan.processes, args=(work,), join=False)
    try:
        with _signals_passed_on(context.pids()) as received:
            failed_at = None
            while not context.join(timeout=_LOOK):
                if machines is None or not machines.problem():
                    continue
                failed_at = failed_at or time.monotonic()
                if time.monotonic() > failed_at + _GRACE:
                    _end(context)
                    raise MachineLost(describe_machine(machines.problem()))
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        _raise_first(error, work, context, machines, received)


def _raise_first(
    error: mp.ProcessRaisedException | mp.ProcessExitedException,
    work: _Work,
    context: mp.ProcessContext,
    machines: Machines | None,
    received: list[int],
) -> NoReturn:
    """Raise what has ended the run: a process that died, another machine, or the first error of a process."""
    text = first_error(work.folder) or str(error)
    codes = [process.exitcode for process in context.processes]
    if received and isinstance(error, mp.ProcessExitedException):
        if signal.SIGINT in received:
            raise KeyboardInterrupt from None
        raise EndedAtOnce(
            f"{signal.Signals(received[0]).name} has ended the processes at once: --resume goes on after the last "
            "checkpoint, if there is one."
        ) from None
    if EXIT_KEYBOARD in codes:
        raise KeyboardInterrupt from None
    # SIGTERM is what the others are ended with
    died = [index for index, code in enumerate(codes) if code is not None and code < 0 and code != -signal.SIGTERM]
    if died or isinstance(error, mp.ProcessExitedException):
        index = died[0] if died else error.error_index
        raise ProcessDied(describe_exit(work.plan.ranks[index], work.plan.host, codes[index] or 0)) from None
    if machines is not None and _is_lost_contact(text) and (problem := machines.problem(wait=_NOTICE)):
        raise MachineLost(describe_machine(problem)) from None
    raise mp.ProcessRaisedException(text, error.error_index, error.error_pid) from None


def _is_lost_contact(text: str) -> bool:
    """Return whether a traceback is that of a process which has lost another."""
    return text.strip().splitlines()[-1].startswith(f"{LostContact.__module__}.{LostContact.__qualname__}: ")


def _end(context: mp.ProcessContext) -> None:
    """End the processes of a run, those that do not listen by force."""
    for process in context.processes:
        process.terminate()
    for process in context.processes:
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _signals_passed_on(pids: list[int]) -> Iterator[list[int]]:
    """Pass the signals that end training on to the processes of a run, as SIGUSR1; yield the list of those received."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        yield received
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker(local_rank: int, work: _Work) -> None:
    """Run the function as one of the processes, and leave the traceback of its error for the launcher."""
    follow_parent(grace=3.0)  # in which a step may be finished and saved
    plan = work.plan
    process = ProcessRank(
        rank=plan.ranks[local_rank],
        local_rank=local_rank,
        world_size=plan.machines * plan.processes,
        local_size=plan.processes,
    )
    noted = partial(note_error, work.folder, local_rank)
    try:
        with membership(process, work.device, work.address, timeout=work.timeout, on_error=noted):
            work.function(*work.args)
    except KeyboardInterrupt:
        sys.exit(EXIT_KEYBOARD)  # torch would take it for success


def note_error(folder: Path, local_rank: int, error: Exception) -> None:
    """Write the traceback of an error for `first_error`.

    Under its name the file is whole: the launcher ends this process as soon as another has failed, at any line.
    """
    unfinished = folder / f"unfinished_{local_rank}"
    unfinished.write_text("".join(traceback.format_exception(error)))
    unfinished.rename(folder / f"error_{time.monotonic_ns():020d}_{local_rank}")


def first_error(folder: Path) -> str:
    """Return the traceback that a process has noted first, or "" if none has.

    Processes that fail because they lost it may exit sooner, and their errors say less.
    """
    errors = sorted(folder.glob("error_*"))
    return errors[0].read_text() if errors else ""
