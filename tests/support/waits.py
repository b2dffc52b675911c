"""How often a training step would wait for a device: found on the CPU, by following what would lie on the device."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_detr.modeling import matcher

# Operators whose result on the host, or its size, depends on values: a device's queue has to be empty before.
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave.Tensor",
    "bincount",
)
INDEXING = ("index.Tensor", "index_put", "index_put_", "_index_put_impl_")


class Waits(TorchDispatchMode):
    """Counts of the operators by which the host waits for values that come from `model` or were sent to its device.

    A value lies on the device if it is computed from a parameter, a buffer, or a tensor that `Tensor.to` was asked to
    bring to a `torch.device`; `Tensor.cpu` brings it back. All such tensors are kept, so that memory is not used twice.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.by_operator: Counter[str] = Counter()
        self._kept: list[Tensor] = []
        self._on_device: set[int] = set()
        for each in (*model.parameters(), *model.buffers()):
            self.send(each)

    def send(self, value: Tensor) -> None:
        """Note that a tensor lies on the device."""
        self._kept.append(value)
        self._on_device.add(value.untyped_storage()._cdata)

    def is_on_device(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self._on_device

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(self.is_on_device(value) for value in tree_leaves((args, kwargs))):
            name = str(operator).removeprefix("aten.")
            masks = name.startswith(INDEXING) and any(
                isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            )
            if masks or name.startswith(WAITING):
                self.by_operator[name] += 1
            result = operator(*args, **kwargs)
            for value in tree_leaves(result):
                if isinstance(value, Tensor):
                    self.send(value)
            return result
        return operator(*args, **kwargs)


@contextmanager
def counted_waits(model: nn.Module) -> Iterator[Waits]:
    """Count the waits of a block, in which the matcher copies as it does from a device."""
    waits = Waits(model)
    to, cpu = Tensor.to, Tensor.cpu

    def send(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = to(self, *args, **kwargs)
        if any(isinstance(each, torch.device) for each in (*args, *kwargs.values())):
            result = result.clone() if result is self else result
            waits.send(result)
        return result

    def bring_back(self: Tensor) -> Tensor:
        if not waits.is_on_device(self):
            return cpu(self)
        waits.by_operator["cpu"] += 1
        return torch.from_numpy(self.detach().numpy().copy())

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(Tensor, "to", send))
        patches.enter_context(mock.patch.object(Tensor, "cpu", bring_back))
        patches.enter_context(mock.patch.object(matcher, "copy_to_host", matcher.in_one_copy))
        patches.enter_context(waits)
        yield waits
