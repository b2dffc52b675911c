"""The parts of a detector without what only losses read: auxiliary heads, boxes of tokens that are not proposed."""

import copy
from collections.abc import Sequence
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from align_detr.inference.optimized.fused import Kernels, Linear, linear_of
from align_detr.inference.optimized.layout import keep
from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.layers.mlp import MLP
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.deformable import DeformableEncoder, token_references
from align_detr.modeling.head import Head, LayerwiseHead, LayerwiseIoUHead, SharedHead, SoftmaxHead
from align_detr.modeling.proposals import ClassProposals, ObjectProposals, TwoStageProposals, gather_tokens
from align_detr.modeling.routes import RoutedDecoder
from align_detr.structures import Memory, Predictions, Proposals, QueryPart

TOKENS_AT_ONCE = 1024  # of a feed-forward block on a CPU: 8 MiB of 2,048 channels


class FusedFeedForward(nn.Module):
    """A `FeedForward` whose ReLU is part of its first layer.

    A CPU transforms some tokens after the others, whose inner channels stay in its cache: those of all tokens of DINO
    are 52 MB at 480x640.
    """

    def __init__(self, block: FeedForward, kernels: Kernels) -> None:
        super().__init__()
        self.layers = nn.Sequential(kernels.linear(block.linear1, relu=True), kernels.linear(block.linear2))

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: (..., C) -> (..., C)."""
        tokens = x.flatten(0, -2)
        if x.device.type != "cpu" or len(tokens) <= TOKENS_AT_ONCE:
            return self.layers(x)
        return torch.cat([self.layers(part) for part in tokens.split(TOKENS_AT_ONCE)]).view(x.shape)


class FusedMLP(nn.Module):
    """An `MLP` whose ReLUs are parts of its layers."""

    def __init__(self, mlp: MLP, kernels: Kernels) -> None:
        super().__init__()
        *inner, last = mlp.layers
        self.layers = nn.Sequential(
            *(kernels.linear(cast(nn.Linear, x), relu=True) for x in inner), kernels.linear(cast(nn.Linear, last))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers: (..., in_dim) -> (..., out_dim)."""
        return self.layers(x)


class FusedAttention(MultiHeadAttention):
    """A `MultiHeadAttention` with three linear layers in place of its one parameter."""

    out_proj: Linear  # type: ignore[assignment]  # of the parent, whose input parameter is missing as well

    def __init__(self, attention: MultiHeadAttention, kernels: Kernels) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.dropout = attention.num_heads, 0.0
        self.out_proj = kernels.linear(attention.out_proj)
        self.inputs = nn.ModuleList(
            kernels.linear(linear_of(weight, bias))
            for weight, bias in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        )

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project query (B, Q, C), key and value (B, S, C), and split each into heads: (B, H, Q or S, D)."""
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, x in zip(self.inputs, (query, key, value), strict=True)
        )
        return q, k, v


class KeptDeformableEncoder(nn.Module):
    """A `DeformableEncoder` whose references are kept per shape."""

    def __init__(self, encoder: DeformableEncoder) -> None:
        super().__init__()
        self.layers, self.norm = encoder.layers, encoder.norm

    def forward(self, memory: Memory) -> Memory:
        """Return the memory with its tokens, (B, S, C), encoded."""
        reference, x = keep(memory, token_references), memory.tokens
        for layer in self.layers:
            x = layer(x, memory, reference)
        return memory.with_tokens(x if self.norm is None else self.norm(x))


class SelectedProposals(nn.Module):
    """The first stage of a two-stage detector: scores of all tokens, boxes of the selected ones alone.

    The set `enc`, which trains it, has no rows.
    """

    def __init__(self, proposals: ClassProposals | ObjectProposals) -> None:
        super().__init__()
        self.proposals = proposals
        self.one_class = isinstance(proposals, ObjectProposals)

    def forward(self, memory: Memory) -> Proposals:
        """Return the proposals of encoded tokens."""
        stage: TwoStageProposals = self.proposals
        anchors, allowed = keep(memory, stage.anchors)
        tokens = stage.encode(memory.tokens, allowed)  # (B, S, C)
        scores = stage.class_scores(stage.class_embed(tokens))  # (B, S, K)
        best = scores[..., 0] if self.one_class else scores.amax(-1)
        index, valid = stage.select_best(best, allowed, memory)
        content = gather_tokens(tokens, index)  # (B, Q, C)
        if valid is not None:  # index 0 fills up, which may be a token that does not propose
            content = stage.encode(gather_tokens(memory.tokens, index), allowed.gather(1, index))
        boxes = stage.boxes(content, gather_tokens(anchors, index))
        none = boxes.new_empty(0, *boxes.shape[:2], 4)
        return Proposals(content, boxes, Predictions(logits=none, boxes=none, origin="proposals"), valid)


class LastLayerDecoder(nn.Module):
    """A decoder whose head reads the last layer's output alone; references move in every layer as before."""

    def __init__(self, decoder: Decoder, head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.last_head = _last_layer(head)

    def forward(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> dict[str, Predictions]:
        """Decode the one query part of prediction and return its set, of one row."""
        (part,) = queries
        hidden, references = self.decoder.decode(queries, memory, head)
        last = None if references is None else references[-1:]
        return {part.name: part.as_set(self.last_head(hidden[-1:], last))}


def has_last_layer(decoder: nn.Module, head: nn.Module) -> bool:
    """Say whether decoder and head are the library's, of which the last row can be computed alone."""
    heads = (SoftmaxHead, SharedHead, LayerwiseHead, LayerwiseIoUHead)
    forwards = (Decoder.forward, RoutedDecoder.forward)  # routes are of training alone
    return type(head) in heads and isinstance(decoder, Decoder) and type(decoder).forward in forwards


def _last_layer(head: nn.Module) -> nn.Module:
    """Return a head of the last layer that shares its modules with `head`."""
    if not isinstance(head, LayerwiseHead):
        return head
    last = copy.copy(head)
    last._modules = {
        name: modules[-1:] for name, modules in head.named_children() if isinstance(modules, nn.ModuleList)
    }
    return last


def has_relu(block: nn.Module) -> TypeGuard[FeedForward]:
    """Say whether a module is a feed-forward block with ReLU."""
    return type(block) is FeedForward and type(block.activation) is nn.ReLU
