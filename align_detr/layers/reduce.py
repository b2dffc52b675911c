"""Means over all processes of a run."""

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of `values` over all processes, without gradient and without waiting for the device.

    Every process must call it with a tensor of the same shape. Without a process group it returns the values.
    """
    values = values.detach()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values := values.clone())
        values = values / dist.get_world_size()
    return values
