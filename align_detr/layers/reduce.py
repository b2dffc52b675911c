"""Means over all processes of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

_alone = False


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of `values` over all processes, without gradient and without waiting for the device.

    Every process must call it with a tensor of the same shape. Without a process group, or `alone`, it returns the
    values.
    """
    values = values.detach()
    if dist.is_available() and dist.is_initialized() and not _alone:
        dist.all_reduce(values := values.clone())
        values = values / dist.get_world_size()
    return values


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute without the others, as the only one of its run, in a `with` block.

    This holds for `mean_over_ranks` and for detectron2's layers, not for torch's SyncBatchNorm.
    """
    global _alone
    before, world_size = _alone, comm.get_world_size
    _alone, comm.get_world_size = True, lambda: 1
    try:
        yield
    finally:
        _alone, comm.get_world_size = before, world_size
