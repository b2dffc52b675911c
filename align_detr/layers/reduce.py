"""Values that all processes of a run share."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

_WITHIN_PROCESS = ContextVar("within_process", default=False)


@contextmanager
def within_process() -> Iterator[None]:
    """Let `mean_over_ranks` return each process's own values, where processes have different numbers of batches."""
    token = _WITHIN_PROCESS.set(True)
    try:
        yield
    finally:
        _WITHIN_PROCESS.reset(token)


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of `values` over all processes, without gradient and without waiting for the device.

    Every process must call it with a tensor of the same shape. Without a process group and `within_process`, it returns
    the values.
    """
    values = values.detach()
    if not _WITHIN_PROCESS.get() and dist.is_available() and dist.is_initialized():
        dist.all_reduce(values := values.clone())
        values = values / dist.get_world_size()
    return values


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every process the main process's buffers: a batch norm has the statistics of its own process's images."""
    if comm.get_world_size() > 1:
        for buffer in module.buffers():
            shared = buffer.contiguous()
            dist.broadcast(shared, 0)
            buffer.copy_(shared)


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute without the others, as the only one of its run, in a `with` block.

    This holds for `mean_over_ranks` and for detectron2's layers, not for torch's SyncBatchNorm.
    """
    world_size = comm.get_world_size
    comm.get_world_size = lambda: 1
    try:
        with within_process():
            yield
    finally:
        comm.get_world_size = world_size
