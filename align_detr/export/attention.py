"""Attention in operators that every runtime has, in place of the library's own operator and of a fused one of timm."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.layers.deformable_attention import MultiScaleDeformableAttention


def sample(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute `deformable_attention` with one `grid_sample` per level; sizes may be symbolic.

    value (B, S, H, D); locations (B, Q, H, L, P, 2) float32; weights (B, Q, H, L, P) -> (B, Q, H*D).
    """
    tokens = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B*H, D, S)
    # queries last: sums over an inner axis of a few points are slow in onnxruntime
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*H, L, P, Q, 2)
    shares = weights.to(value.dtype).permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B*H, L, P, Q)
    start, of_levels = 0, []
    for level, (height, width) in enumerate(shapes):
        stop = start + height * width
        x = tokens[..., start:stop].unflatten(-1, (height, width))  # (B*H, D, h, w)
        sampled = F.grid_sample(x, grids[:, level].to(value.dtype), align_corners=False)  # (B*H, D, P, Q)
        of_levels.append((sampled * shares[:, None, level]).sum(2))  # (B*H, D, Q)
        start = stop
    total = functools.reduce(torch.add, of_levels)
    return total.unflatten(0, (-1, value.shape[2])).flatten(1, 2).transpose(1, 2)


class PlainDeformableAttention(MultiScaleDeformableAttention):
    """`MultiScaleDeformableAttention` for export: ordinary operators, and sizes of levels that may be symbolic."""

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attend as the parent does."""
        value = self.value_proj(value)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        per_point = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_point, 2)).float()
        weights = self._sampling_weights(query).unflatten(-1, per_point[1:])
        out = sample(
            value.unflatten(-1, (self.num_heads, -1)), shapes, self._locations(reference, offsets, shapes), weights
        )
        return self.output_proj(out)

    def _locations(self, reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Add offsets to references as the parent does, without a tensor made of the sizes, which would freeze them."""
        reference = reference.float()[:, :, None, :, None, :]
        if reference.shape[-1] == 4:
            return reference[..., :2] + offsets * reference[..., 2:] * (0.5 / self.num_points)
        moved = []
        for level, (height, width) in enumerate(shapes):
            x, y = offsets[:, :, :, level].unbind(-1)
            moved.append(torch.stack([x / width, y / height], dim=-1))
        return reference + torch.stack(moved, dim=3)


def use_plain_attention(model: nn.Module) -> None:
    """Let all deformable attention in a model be computed by ordinary operators; names and weights stay."""
    for module in model.modules():
        if type(module) is MultiScaleDeformableAttention:
            module.__class__ = PlainDeformableAttention


def use_unfused_attention(model: nn.Module) -> None:
    """Let timm's attention in a model be computed by products and a softmax.

    ViTDet's has tensors of 3 dimensions, and ONNX's translation of a fused attention takes 4 alone.
    """
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if getattr(module, "fused_attn", False):
            module.fused_attn = False
