"""Activation checkpointing: blocks of a model keep their input alone, and are computed again in the backward pass."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

PARTS = ("backbone", "encoder", "decoder")
NO_BLOCKS = ("query_masks", "routes")  # lists of a decoder, beside its layers, that are no steps of its computation


class Recomputed:
    """The `forward` of a block, whose intermediate results are not kept for the backward pass but computed again.

    It takes the place of the block's own `forward`, so that names of weights stay, and a deep copy has its own. Random
    numbers and precision of the second computation are those of the first; batch norms count a batch once.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block; without gradients, as it is."""
        forward = type(self.block).forward
        if not torch.is_grad_enabled():
            return forward(self.block, *args, **kwargs)
        return checkpoint(forward, self.block, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the first and of the second computation."""
        return nullcontext(), _statistics_kept(self.norms)


def checkpoint_activations(model: nn.Module, parts: bool | str | Sequence[str] | None) -> None:
    """Let the blocks of `parts` of the model be computed again in the backward pass, and log their number.

    `parts` is True for every part with a name of PARTS, or the dotted names of parts. Blocks are the entries of the
    outermost lists of a part: layers of an encoder or decoder, residual blocks of a backbone. Raise ConfigError for a
    part that the model has not, and if there is no block. Lists of NO_BLOCKS are left out.
    """
    if not parts:
        return
    names = _names(model, parts)
    counts = {}
    for name in names:
        blocks = [block for block in _blocks(model.get_submodule(name)) if not isinstance(block.forward, Recomputed)]
        for block in blocks:
            block.forward = Recomputed(block)
        if blocks:
            counts[name] = len(blocks)
        elif parts is not True:
            raise ConfigError(
                f"train.checkpoint_activations names '{name}', which has no list of blocks: name {_remedy(model)}."
            )
    if not counts:
        raise ConfigError(
            "train.checkpoint_activations=True finds no blocks in the model: set it to False, or name the parts."
        )
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    logger.info("Activation checkpointing: blocks computed again in the backward pass: %s.", listed)


def _names(model: nn.Module, parts: bool | str | Sequence[str]) -> list[str]:
    """Return the names of the parts; raise ConfigError for one that the model has not."""
    if parts is True:
        return [name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in PARTS]
    names = [parts] if isinstance(parts, str) else list(parts) if isinstance(parts, Sequence) else [str(parts)]
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not name:
            raise ConfigError(
                f"train.checkpoint_activations names '{name}', which the model has not: name {_remedy(model)}, or set "
                "it to True or False."
            )
    return names


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of the outermost lists in a module, but for lists in lists and for single layers."""
    of_list = isinstance(module, (nn.ModuleList, nn.Sequential))
    for name, child in module.named_children():
        if name in NO_BLOCKS:
            continue
        if of_list and not isinstance(child, nn.ModuleList) and next(child.children(), None) is not None:
            yield child
        else:
            yield from _blocks(child)


def _remedy(model: nn.Module) -> str:
    parts = [name for name, child in model.named_children() if next(_blocks(child), None) is not None]
    return f"some of {', '.join(parts)}" if parts else "a part with blocks, of which this model has none"


@contextmanager
def _statistics_kept(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Leave the running statistics of batch norms, which a forward pass in training changes, as they are."""
    before = [(norm, dict(norm._buffers)) for norm in norms]
    for norm, buffers in before:
        norm._buffers.update({key: None if value is None else value.clone() for key, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in before:
            norm._buffers.update(buffers)
