"""Processes of one run: started by torchrun or by the launcher, on CUDA (nccl) or on the CPU (gloo)."""

import contextlib
import gc
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Imported before any group is made (DistributedDataParallel imports it as well): its functions take the group of all
# processes as a default argument, and would keep that group and its threads until the interpreter has shut down.
import torch.distributed.nn.functional
from detectron2.utils import comm
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from align_detr.engine.lost import LostContact, Peer, address_toward, describe_lost, describe_no_start, interface_of
from align_detr.engine.start_round import name_round
from align_detr.errors import ConfigError, EnvironmentProblem

TIMEOUT = 1800.0  # seconds that processes wait for each other


@dataclass(frozen=True)
class ProcessRank:
    """Ranks of one process: among all `world_size`, and among the `local_size` of its machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_size: int = 1


def check_restarts(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError if torchrun would start this command again: what the run has saved would be removed."""
    if int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
        raise ConfigError(
            "--overwrite and torchrun's --max-restarts exclude each other, as a restart would remove its own "
            "checkpoints: clear the folder once, and give --resume from the start."
        )


def check_alone(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError if a scheduler's variables say that this is one of several processes or machines.

    PyTorchJob sets RANK and WORLD_SIZE for its pods; each would train alone, into the same folder.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys() and environment["WORLD_SIZE"] not in ("", "1"):
        raise ConfigError(
            f"RANK and WORLD_SIZE say that this is process {environment['RANK']} of {environment['WORLD_SIZE']}, but "
            "LOCAL_RANK is missing: start the command with torchrun, give --num-machines, --machine-rank and "
            "--dist-url, or unset RANK to train alone."
        )


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


def check_device(device: str, local_size: int = 1, *, key: str = "train.device") -> None:
    """Raise EnvironmentProblem unless this machine has the devices that `local_size` processes need.

    `key` is what an error calls the setting.
    Raise ConfigError for a device that PyTorch does not know.
    """
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key}={device} is no device that PyTorch knows: set it to cuda or cpu.") from error
    if kind != "cuda":
        _check_other(device, kind, key)
        return
    if not torch.cuda.is_available():
        raise EnvironmentProblem(f"{key}={device}, but PyTorch finds no CUDA device here: set {key}=cpu.")
    if local_size > torch.cuda.device_count():
        raise EnvironmentProblem(
            f"{local_size} processes need as many GPUs, but this machine has {torch.cuda.device_count()}: "
            "lower --num-gpus (or --nproc-per-node)."
        )


def _check_other(device: str, kind: str, key: str) -> None:
    """Raise EnvironmentProblem for a kind of device that this machine lacks, ConfigError for one without numbers."""
    if kind == "meta":
        raise ConfigError(f"{key}={device}, which computes no numbers: set it to cuda or cpu.")
    try:
        torch.empty(1, device=kind)
    except (RuntimeError, AssertionError) as error:  # of PyTorch without this kind
        raise EnvironmentProblem(f"{key}={device}, but PyTorch finds no such device here: set {key}=cpu.") from error


def join(process: ProcessRank, device: str, init_method: str = "env://", *, timeout: float = TIMEOUT) -> list[Peer]:
    """Make this process a member of the run: process group, detectron2's group of the machine, and its GPU.

    `init_method`: torch's, or tcp://HOST:PORT of the store that a launcher has opened. Return the processes of the run
    by rank. Raise EnvironmentProblem if they do not come together within `timeout` seconds, ConfigError for machines
    with different numbers of processes.
    """
    check_device(device, process.local_size)
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(process.local_rank)
    host, address = _master(init_method)
    if process.world_size > process.local_size:
        _use_interface_to(host)
    try:
        dist.init_process_group(
            backend="nccl" if on_cuda else "gloo",
            world_size=process.world_size,
            rank=process.rank,
            timeout=timedelta(seconds=timeout),
            **_meeting(init_method, process, address, timeout),
        )
    except RuntimeError as error:
        if sentence := describe_no_start(error, address, process.world_size, timeout):
            raise EnvironmentProblem(sentence) from error
        raise
    try:
        return _settle_in(process, host)
    except BaseException:
        leave()
        raise


def _master(init_method: str) -> tuple[str, str]:
    """Return the host where the processes meet, and the address that errors name."""
    if init_method == "env://":
        host = os.environ.get("MASTER_ADDR", "")
        return host, f"{host}:{os.environ.get('MASTER_PORT', '')}"
    address = init_method.partition("://")[2]
    return address.rpartition(":")[0], address


def _meeting(init_method: str, process: ProcessRank, address: str, timeout: float) -> dict[str, Any]:
    """Return the arguments of init_process_group on where the processes meet."""
    limit = timedelta(seconds=timeout)
    if init_method == "env://":
        store, _, _ = next(dist.rendezvous(init_method, process.rank, process.world_size, timeout=limit))
    elif init_method.startswith("tcp://"):
        host, _, port = address.rpartition(":")
        store = dist.TCPStore(host, int(port), None, False, timeout=limit)
    else:
        return {"init_method": init_method}
    name = name_round(store, process.rank, process.world_size, address=address, timeout=timeout)
    return {"store": dist.PrefixStore(name, store)}


def _use_interface_to(host: str) -> None:
    """Let gloo use the network interface that leads to the other machines, unless GLOO_SOCKET_IFNAME names one.

    By itself gloo takes that of the host's name, which on many systems is the loopback interface.
    """
    address = address_toward(host)
    name = "" if address.startswith("127.") else interface_of(address)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _settle_in(process: ProcessRank, host: str) -> list[Peer]:
    """Make detectron2's group of the machine; return the processes of the run."""
    present = comm.all_gather((process.local_size, Peer.here(host)))
    sizes = [size for size, _ in present]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"The machines have different numbers of processes ({min(sizes)} to {max(sizes)}): give all machines the "
            "same --nproc-per-node (or --num-gpus)."
        )
    _make_local_group(process)
    comm.synchronize()
    return [peer for _, peer in present]


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
def membership(
    process: ProcessRank,
    device: str,
    init_method: str = "env://",
    *,
    timeout: float = TIMEOUT,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> Iterator[None]:
    """Join the run for the duration of a `with` block; at its end, wait for the other processes before leaving.

    The arguments are those of `join`; `on_error` is called with an error before this process leaves the others, who
    lose it then. Raise LostContact in place of torch's errors when another process is gone. The frames of an escaping
    exception are cleared: a model held by one of them would keep the process group alive.
    """
    peers = join(process, device, init_method, timeout=timeout)
    try:
        yield
        comm.synchronize()  # a process that leaves early may fail another that still listens to it
    except Exception as error:
        _clear_frames(error)
        sentence = describe_lost(error, process.rank, peers, timeout)
        named = error if sentence is None else LostContact(sentence)
        on_error(named)
        if named is error:
            raise
        raise named from error
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


def adopt_group() -> None:
    """Let detectron2 know the processes of this machine if other code has made the process group, as Ray Train does."""
    if not (dist.is_available() and dist.is_initialized()) or comm._LOCAL_PROCESS_GROUP is not None:
        return
    size = dist.get_world_size()
    _make_local_group(torchrun_rank() or ProcessRank(dist.get_rank(), dist.get_rank(), size, size))


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
