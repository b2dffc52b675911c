"""Processes of one run: started by torchrun, or by ourselves, on CUDA (nccl) or on the CPU (gloo)."""

import contextlib
import gc
import os
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Imported here, before any group is made (DistributedDataParallel imports it as well): its functions take the group of
# all processes as a default argument, and would keep that group and its threads until the interpreter has shut down.
import torch.distributed.nn.functional  # noqa: F401
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from align_detr.errors import ConfigError, EnvironmentProblem

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class ProcessPlace:
    """Where one process stands: its rank among all `world_size`, and among the `local_size` of its machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_size: int = 1


def torchrun_place(environment: Mapping[str, str] = os.environ) -> ProcessPlace | None:
    """Return this process's place if torchrun started it, else None."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    world_size = int(environment["WORLD_SIZE"])
    return ProcessPlace(
        rank=int(environment["RANK"]),
        local_rank=int(environment["LOCAL_RANK"]),
        world_size=world_size,
        local_size=int(environment.get("LOCAL_WORLD_SIZE", world_size)),
    )


def check_device(device: str, local_size: int = 1) -> None:
    """Raise EnvironmentProblem if this machine has not the devices that `local_size` processes need.

    Raises ConfigError for a device that PyTorch does not know.
    """
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"train.device={device} is no device that PyTorch knows: set cuda or cpu.") from error
    if kind != "cuda":
        return
    if not torch.cuda.is_available():
        raise EnvironmentProblem(f"train.device={device}, but PyTorch finds no CUDA device here: set train.device=cpu.")
    if local_size > torch.cuda.device_count():
        raise EnvironmentProblem(
            f"{local_size} processes were asked for and this machine has {torch.cuda.device_count()} GPUs: "
            "lower --num-gpus (or --nproc-per-node)."
        )


def join(place: ProcessPlace, device: str, init_method: str = "env://") -> None:
    """Make this process a member of the run: process group, detectron2's group of the machine, and its GPU."""
    check_device(device, place.local_size)
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group(
        backend="nccl" if on_cuda else "gloo",
        init_method=init_method,
        world_size=place.world_size,
        rank=place.rank,
        timeout=TIMEOUT,
    )
    _make_local_group(place)
    comm.synchronize()


def leave() -> None:
    """Leave the run's process group, if there is one, and end its threads.

    A thread of gloo that lets go of a tensor needs the interpreter, and aborts a process that is shutting it down
    ("terminate called without an active exception"). So whatever holds the group lets go of it here.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
    gc.collect()  # a model in DistributedDataParallel holds the group, and stands in cycles


@contextlib.contextmanager
def membership(place: ProcessPlace, device: str, init_method: str = "env://") -> Iterator[None]:
    """Join the run for the time of a `with` block, at whose end the processes wait for each other before they leave.

    An error goes on without the variables of the frames that it passed: a model among them would keep the group.
    """
    join(place, device, init_method)
    try:
        yield
        comm.synchronize()  # where one leaves early, another may fail that still listens to it
    except BaseException as error:
        _forget_variables(error)
        raise
    finally:
        leave()


def _forget_variables(error: BaseException) -> None:
    """Empty the frames of an error and of those that led to it, which may do so in a circle."""
    pending, seen = [error], set()
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            pending += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _make_local_group(place: ProcessPlace) -> None:
    """Tell detectron2 which processes share this machine (a function in its main branch, a variable in v0.5)."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(place.local_size)
        return
    for first in range(0, place.world_size, place.local_size):
        ranks = list(range(first, first + place.local_size))
        group = dist.new_group(ranks)  # every process must make every group
        if place.rank in ranks:
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

    Raises ConfigError for several machines without an address, EnvironmentProblem for missing GPUs, and torch's
    ProcessRaisedException or ProcessExitedException when a process fails (the others are then ended).
    """
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank {machine_rank} must be at least 0 and less than --num-machines {num_machines}."
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise ConfigError("--num-machines above 1 needs --dist-url tcp://HOST:PORT, the address of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    check_device(device, local_size)
    with tempfile.TemporaryDirectory() as folder:
        first_error = Path(folder) / "first_error"
        given = (function, args, device, local_size, num_machines, machine_rank, dist_url, first_error)
        try:
            mp.spawn(_worker, nprocs=local_size, args=given)
        except mp.ProcessRaisedException as error:
            if not first_error.exists():
                raise
            raise mp.ProcessRaisedException(first_error.read_text(), error.error_index, error.error_pid) from None


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
    """Run `function` as one of the processes. The first that fails says so in a file before it leaves: those that then
    miss it fail as well, may end earlier, and know less.
    """
    place = ProcessPlace(
        rank=machine_rank * local_size + local_rank,
        local_rank=local_rank,
        world_size=num_machines * local_size,
        local_size=local_size,
    )
    if torch.device(device).type == "cpu":
        # Each process would otherwise start as many threads as the machine has cores.
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    with membership(place, device, dist_url):
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
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        wrapped.register_comm_hook(state=None, hook=fp16_compress_hook)
    return wrapped
