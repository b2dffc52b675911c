"""Processes of one run: started by torchrun or by `spawn`, on CUDA (nccl) or on the CPU (gloo)."""

import contextlib
import gc
import os
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

# Imported before any group is made (DistributedDataParallel imports it as well): its functions take the group of all
# processes as a default argument, and would keep that group and its threads until the interpreter has shut down.
import torch.distributed.nn.functional
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from align_detr.data.workers import follow_parent
from align_detr.errors import ConfigError, EnvironmentProblem

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class ProcessRank:
    """Ranks of one process: among all `world_size`, and among the `local_size` of its machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_size: int = 1


def torchrun_rank(environment: Mapping[str, str] = os.environ) -> ProcessRank | None:
    """Return this process's ranks if torchrun started it, else None."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    world_size = int(environment["WORLD_SIZE"])
    return ProcessRank(
        rank=int(environment["RANK"]),
        local_rank=int(environment["LOCAL_RANK"]),
        world_size=world_size,
        local_size=int(environment.get("LOCAL_WORLD_SIZE", world_size)),
    )


def check_device(device: str, local_size: int = 1) -> None:
    """Raise EnvironmentProblem unless this machine has the devices that `local_size` processes need.

    Raise ConfigError for a device that PyTorch does not know.
    """
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"train.device={device} is no device that PyTorch knows: set it to cuda or cpu.") from error
    if kind != "cuda":
        return
    if not torch.cuda.is_available():
        raise EnvironmentProblem(f"train.device={device}, but PyTorch finds no CUDA device here: set train.device=cpu.")
    if local_size > torch.cuda.device_count():
        raise EnvironmentProblem(
            f"{local_size} processes need as many GPUs, but this machine has {torch.cuda.device_count()}: "
            "lower --num-gpus (or --nproc-per-node)."
        )


def join(process: ProcessRank, device: str, init_method: str = "env://") -> None:
    """Make this process a member of the run: process group, detectron2's group of the machine, and its GPU."""
    check_device(device, process.local_size)
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(process.local_rank)
    dist.init_process_group(
        backend="nccl" if on_cuda else "gloo",
        init_method=init_method,
        world_size=process.world_size,
        rank=process.rank,
        timeout=TIMEOUT,
    )
    _make_local_group(process)
    comm.synchronize()


def leave() -> None:
    """Leave the run's process group, if there is one, and end its threads.

    A thread of gloo that releases a tensor needs the interpreter, and aborts a process that is shutting it down
    ("terminate called without an active exception"). So everything that holds the group releases it here.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
    gc.collect()  # a model in DistributedDataParallel holds the group, and is part of reference cycles


@contextlib.contextmanager
def membership(process: ProcessRank, device: str, init_method: str = "env://") -> Iterator[None]:
    """Join the run for the duration of a `with` block; at its end, wait for the other processes before leaving.

    The frames of an escaping exception are cleared: a model held by one of them would keep the process group alive.
    """
    join(process, device, init_method)
    try:
        yield
        comm.synchronize()  # a process that leaves early may fail another that still listens to it
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        leave()


def _clear_frames(error: BaseException) -> None:
    """Clear the frames of an exception and of those that led to it; exceptions may lead to each other in a circle."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            pending += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]


def _make_local_group(process: ProcessRank) -> None:
    """Tell detectron2 which processes share this machine (a function in its main branch, a variable in v0.5)."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(process.local_size)
        return
    for first in range(0, process.world_size, process.local_size):
        ranks = list(range(first, first + process.local_size))
        group = dist.new_group(ranks)  # every process must make every group
        if process.rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def spawn(
    function: Callable[..., None],
    args: tuple[Any, ...],
    *,
    device: str,
    local_size: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Run `function(*args)` in `local_size` new processes of this machine, joined with those of the other machines.

    Raise ConfigError for several machines without an address, EnvironmentProblem for missing GPUs, and torch's
    ProcessRaisedException or ProcessExitedException if a process fails (the others are then ended).
    """
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank is {machine_rank}, of {num_machines} machines: number them from 0 to {num_machines - 1}."
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise ConfigError("--num-machines above 1 needs --dist-url tcp://HOST:PORT, the address of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    check_device(device, local_size)
    with tempfile.TemporaryDirectory() as folder:
        first_error = Path(folder) / "first_error"
        worker_args = (function, args, device, local_size, num_machines, machine_rank, dist_url, first_error)
        try:
            context = mp.spawn(_worker, nprocs=local_size, args=worker_args, join=False)
            with _signals_passed_on(context.pids()):
                while not context.join():
                    pass
        except mp.ProcessRaisedException as error:
            if not first_error.exists():
                raise
            raise mp.ProcessRaisedException(first_error.read_text(), error.error_index, error.error_pid) from None


@contextlib.contextmanager
def _signals_passed_on(pids: Iterable[int]) -> Iterator[None]:
    """Pass the signals that end training on to the processes of a run, as SIGUSR1, and wait for them."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        yield
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker(
    local_rank: int,
    function: Callable[..., None],
    args: tuple[Any, ...],
    device: str,
    local_size: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    first_error: Path,
) -> None:
    """Run `function` as one of the processes.

    The first process to fail writes its traceback to the file `first_error`. The others fail because they lost it, may
    exit sooner, and their errors say less.
    """
    follow_parent(grace=5.0)  # in which a step may be finished and saved
    process = ProcessRank(
        rank=machine_rank * local_size + local_rank,
        local_rank=local_rank,
        world_size=num_machines * local_size,
        local_size=local_size,
    )
    if torch.device(device).type == "cpu":
        # otherwise each process starts as many threads as the machine has cores
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    with membership(process, device, dist_url):
        try:
            function(*args)
        except Exception:
            with contextlib.suppress(FileExistsError), first_error.open("x") as file:
                file.write(traceback.format_exc())
            raise


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


def wrap_ddp(
    model: nn.Module,
    *,
    device: str,
    fp16_compression: bool = False,
    broadcast_buffers: bool = False,
    find_unused_parameters: bool = False,
) -> nn.Module:
    """Return `model` in DistributedDataParallel if there are several processes, else the model itself."""
    if comm.get_world_size() == 1:
        return model
    wrapped = DistributedDataParallel(
        model,
        device_ids=[comm.get_local_rank()] if torch.device(device).type == "cuda" else None,
        broadcast_buffers=broadcast_buffers,
        find_unused_parameters=find_unused_parameters,
    )
    if fp16_compression:
        wrapped.register_comm_hook(state=None, hook=fp16_compress_hook)
    return wrapped
