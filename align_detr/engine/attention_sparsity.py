"""Sparsity of the decoder's cross-attention over training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from align_detr.errors import ConfigError
from align_detr.structures import MAIN, QueryPart

NAME = "attention_sparsity"
PERIOD = 100
NUM_QUERIES = 32


@runtime_checkable
class ReadableAttention(Protocol):
    """The interface of an attention whose weights can be computed beside its `forward`."""

    def weights(self, chosen: slice, *args: Any, **kwargs: Any) -> Tensor:
        """Return the weights (B, H, q, keys) of the `chosen` queries; the other arguments are those of `forward`."""


class AttentionSparsity(HookBase):
    """The negative entropy of each decoder layer's cross-attention, `attention_sparsity/layer_<number>`, from 1, after
    every `period` iterations (TSP, Sun et al. 2021, which follows DETR's attention so).

    The entropy -sum p ln p is that of a query's weights in one head: over all tokens of the image, or, in deformable
    attention, over the sampling points of all levels, wherever they lie. It is averaged over heads, images and at least
    NUM_QUERIES queries (or all), evenly spaced among those of `main` (of its first group). 0 is attention to one token;
    -ln S spreads it evenly over S. The images are those of the main process, of the last part of an accumulated batch.

    In all other iterations nothing is registered. In those that are recorded, the weights are computed beside the
    fused attention from its own inputs, without gradient and random numbers, and copied to the host after the step.
    Raise ConfigError for a decoder whose cross-attention is unknown.
    """

    def __init__(self, model: nn.Module, *, period: int = PERIOD) -> None:
        self.attentions = cross_attentions(model)
        self.decoder = model.get_submodule("decoder")
        self.period = period
        self._handles: list[RemovableHandle] = []
        self._values: dict[int, Tensor] = {}
        self._chosen = slice(None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "AttentionSparsity":
        return self  # a copy of the model that is made in a recorded iteration refers to it, and is not measured

    def before_step(self) -> None:
        """Register the hooks of an iteration that is recorded."""
        if (self.trainer.iter + 1) % self.period == 0:
            self._handles.append(self.decoder.register_forward_pre_hook(self._choose))
            for layer, attention in enumerate(self.attentions, start=1):
                measure = partial(self._measure, layer)
                self._handles.append(attention.register_forward_hook(measure, with_kwargs=True))

    def after_step(self) -> None:
        """Store the numbers of a recorded iteration, and remove its hooks."""
        if self._values:
            numbers = torch.stack(list(self._values.values())).tolist()
            named = {f"{NAME}/layer_{layer}": x for layer, x in zip(self._values, numbers, strict=True)}
            self.trainer.storage.put_scalars(smoothing_hint=False, **named)
        self._remove()

    def after_train(self) -> None:
        """Remove the hooks of an iteration that failed."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._values = [], {}

    def _choose(self, decoder: nn.Module, arguments: tuple[Sequence[QueryPart], Any, Any]) -> None:
        """Choose queries of a forward pass, which replaces the one before."""
        if decoder is not self.decoder:
            return
        self._values = {}
        start = 0
        for part in arguments[0]:
            if part.name == MAIN:
                length = part.content.shape[1] // part.groups
                self._chosen = slice(start, start + length, max(1, length // NUM_QUERIES))
            start += part.content.shape[1]

    @torch.no_grad()
    def _measure(
        self, layer: int, attention: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> None:
        # After the forward pass: autocast of older PyTorch keeps the copies of weights that it makes first, and those
        # made here pass no gradient. The second computation of activation checkpointing is left out.
        if layer not in self._values and attention is self.attentions[layer - 1]:
            weights = cast(ReadableAttention, attention).weights(self._chosen, *args, **kwargs)
            self._values[layer] = negative_entropy(weights).mean()


def attention_sparsity(model: nn.Module, period: int) -> AttentionSparsity | None:
    """Return the hook of `train.attention_sparsity`, or None for the period 0 and on all but the main process.

    Raise ConfigError as AttentionSparsity, on every process.
    """
    hook = AttentionSparsity(model, period=period) if period else None
    return hook if comm.is_main_process() else None


def cross_attentions(model: nn.Module) -> list[nn.Module]:
    """Return the cross-attention of each decoder layer. Raise ConfigError for a model where they are unknown."""
    layers = getattr(getattr(model, "decoder", None), "layers", ())
    attentions: list[Any] = [getattr(layer, "cross_attn", None) for layer in layers]
    for attention in attentions or [None]:
        if not isinstance(attention, ReadableAttention):
            what = type(model).__name__ if attention is None else f"The cross-attention {type(attention).__name__}"
            raise ConfigError(f"{what} has no weights that train.{NAME} could read: set train.{NAME}=0.")
    return attentions


def negative_entropy(weights: Tensor) -> Tensor:
    """Return sum p ln p over the last axis, at most 0, of weights (..., n) that sum to 1: (...)."""
    return -torch.special.entr(weights).sum(-1)
