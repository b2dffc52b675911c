"""Modules that decide, before each decoder layer, which queries attend to each other, and how readily."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.head import Head
from align_detr.structures import QueryPart


@dataclass
class DecoderState:
    """What a decoder knows before a layer: the query `parts`, the `head`, and per layer so far the normed output in
    `hidden`, (B, Q, C) each, Q over all parts, and in `references` where the layer starts, (B, Q, 2 or 4) each, without
    gradient, or None. `references` has one entry more: that of the layer to come.
    """

    parts: Sequence[QueryPart]
    head: Head
    hidden: Sequence[Tensor]
    references: Sequence[Tensor | None]

    @property
    def layer(self) -> int:
        """Index of the layer to come."""
        return len(self.references) - 1

    def boxes(self, layer: int, reader: nn.Module) -> Tensor:
        """Return the boxes at which `layer` starts, normalised cxcywh (B, Q, 4) float32.

        Raise ConfigError, which names the module `reader`, for queries without boxes.
        """
        boxes = self.references[layer]
        if boxes is None or boxes.shape[-1] != 4:
            raise ConfigError(
                f"model.decoder.query_masks has {type(reader).__name__}, which compares boxes, but model.queries "
                "provides none: use a source of queries with reference boxes."
            )
        return boxes.float()


class QueryMask(Protocol):
    """The interface of an entry of a decoder's `query_masks`, which is called before each layer."""

    def __call__(self, mask: Tensor | None, state: DecoderState) -> Tensor | None:
        """Return the mask of the layer to come, in a form of `QueryPlace.blocked`: bool (Q, Q) or (B, 1, Q, Q), or
        numbers (B, H, Q, Q).

        `mask` is that of the entry before, at first that of the parts and groups.
        """


def block(mask: Tensor | None, blocked: Tensor) -> Tensor:
    """Return `mask`, in any form of `QueryPlace.blocked`, with the pairs `blocked` (Q, Q) or (B, 1, Q, Q) forbidden."""
    if mask is None:
        return blocked
    return mask | blocked if mask.dtype == torch.bool else mask.masked_fill(blocked, -torch.inf)


def add(mask: Tensor | None, numbers: Tensor) -> Tensor:
    """Return `mask`, in any form of `QueryPlace.blocked`, with `numbers` (B, H, Q, Q) added to the logits."""
    if mask is None:
        return numbers
    return numbers.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else numbers + mask


def require_moving_boxes(model: Any, reader: nn.Module) -> None:
    """Raise ConfigError, which names the module `reader`, for a decoder whose boxes stay the same in all layers."""
    decoder = model.decoder
    if not decoder.refine or len(decoder.layers) < 2:
        raise ConfigError(
            f"model.decoder.query_masks has {type(reader).__name__}, which compares the boxes of several layers: set "
            "model.decoder.refine to True and num_layers to at least 2, or leave it out."
        )
