"""Multi-scale deformable attention (Zhu et al. 2021, "Deformable DETR", section 4.1): the operator and the module.

The operator is registered with PyTorch as `align_detr::deformable_attention`, so that `torch.compile` and
`torch.export` keep it as one node. That needs PyTorch 2.4; before, it is a plain autograd function, which breaks their
graphs. On CUDA, if Triton is installed, Triton kernels compute it, elsewhere PyTorch. Under
`torch.use_deterministic_algorithms(True)` the kernels, too, sum the gradient of the values in a fixed order.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from align_detr.layers import deformable_attention_torch

try:
    from align_detr.layers import deformable_attention_triton
except ModuleNotFoundError as error:  # Triton exists for Linux only, and PyTorch's CPU builds come without it
    if error.name != "triton":
        raise
    deformable_attention_triton = None  # type: ignore[assignment]  # mypy has no module that may be absent


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sum bilinear samples of `value` at `locations` with `weights` (equation 3 without its two projections).

    value (B, S, H, D): the tokens of all levels concatenated, row by row; `shapes[l]` = (height, width) of level l;
    locations (B, Q, H, L, P, 2): (x, y) of each sampling point, with 0 and 1 at the edges of its level (token centres
    at (i + 0.5) / size, as in `grid_sample` with align_corners=False) and zeros outside; weights (B, Q, H, L, P).
    -> (B, Q, H*D) in the type of `value`. Locations and weights may be float32 with any type of `value`, and all sums
    are at least float32. There is no second derivative. Raise ValueError if the sizes do not fit together.
    """
    _check_sizes(value, shapes, locations, weights)
    if 0 in weights.shape or 0 in value.shape:  # nothing to sample: zeros that keep every input in the graph
        zero = (value.sum() + (locations.sum() + weights.sum()).to(value.dtype)) * 0
        return value.new_zeros(*weights.shape[:2], value.shape[2] * value.shape[3]) + zero
    return _operator(value, [size for shape in shapes for size in shape], locations, weights)


def _check_sizes(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> None:
    batch, tokens, heads, _ = value.shape
    if sum(height * width for height, width in shapes) != tokens:
        raise ValueError(
            f"Levels of {list(shapes)} do not have the {tokens} tokens of value {tuple(value.shape)}: give the height "
            "and width of every level."
        )
    levels = len(shapes)
    if locations.shape[:-1] != weights.shape or locations.shape[-1] != 2 or weights.dim() != 5:
        raise ValueError(
            f"Locations {tuple(locations.shape)} and weights {tuple(weights.shape)} do not fit together: give "
            "(B, Q, H, L, P, 2) and (B, Q, H, L, P)."
        )
    if (weights.shape[0], weights.shape[2], weights.shape[3]) != (batch, heads, levels):
        raise ValueError(
            f"Weights {tuple(weights.shape)} do not fit value and shapes: give (B, Q, H, L, P) with "
            f"B = {batch} images, H = {heads} heads and L = {levels} levels."
        )


def _implementation(value: Tensor) -> ModuleType:
    # the kernels would compute float64 in float32
    suits = value.is_cuda and deformable_attention_triton is not None and value.dtype != torch.float64
    if suits and deformable_attention_triton.can_launch(value.device):
        return deformable_attention_triton
    return deformable_attention_torch


def _pairs(shapes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(shapes[::2], shapes[1::2], strict=True))


def _forward(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return _implementation(value).sample(value, _pairs(shapes), locations, weights)


def _backward(
    grad: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _implementation(value).sample_backward(grad, value, _pairs(shapes), locations, weights)


class DeformableAttentionFunction(torch.autograd.Function):
    """The operator for PyTorch before 2.4."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
        """Compute `deformable_attention` with the shapes in one list [height, width, height, ...]."""
        ctx.shapes = shapes
        ctx.save_for_backward(value, locations, weights)
        return _forward(value, shapes, locations, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of value, locations and weights."""
        value, locations, weights = ctx.saved_tensors
        of_value, of_locations, of_weights = _backward(grad, value, ctx.shapes, locations, weights)
        return of_value, None, of_locations, of_weights


def _register() -> Callable[[Tensor, list[int], Tensor, Tensor], Tensor]:
    """Register forward and backward as two operators, and return the first."""
    arguments = "Tensor value, SymInt[] shapes, Tensor locations, Tensor weights"
    name = "align_detr::deformable_attention"
    forward = torch.library.custom_op(name, _forward, mutates_args=(), schema=f"({arguments}) -> Tensor")
    backward = torch.library.custom_op(
        f"{name}_backward",
        _backward,
        mutates_args=(),
        schema=f"(Tensor grad, {arguments}) -> (Tensor, Tensor, Tensor)",
    )

    @forward.register_fake
    def _(value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
        return value.new_empty(*weights.shape[:2], value.shape[2] * value.shape[3])

    @backward.register_fake
    def _(grad: Tensor, value: Tensor, shapes: list[int], locations: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.new_empty(x.shape) for x in (value, locations, weights))

    def save(ctx: Any, inputs: tuple, output: Tensor) -> None:
        value, ctx.shapes, locations, weights = inputs
        ctx.save_for_backward(value, locations, weights)

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, locations, weights = ctx.saved_tensors
        of_value, of_locations, of_weights = backward(grad, value, ctx.shapes, locations, weights)
        return of_value, None, of_locations, of_weights

    forward.register_autograd(differentiate, setup_context=save)
    return forward


_operator = _register() if hasattr(torch.library, "custom_op") else DeformableAttentionFunction.apply


class MultiScaleDeformableAttention(nn.Module):
    """Attention to `num_points` sampling points per level, with offsets and weights from the query (equation 3).

    Without the residual. Under autocast the projections, the values and the output have its type; the softmax and the
    locations are float32, since half precision would move points by up to half a token of a large level. Raise
    ValueError if `embed_dim` is not a multiple of `num_heads`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}: change one of them.")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dim, samples * 2)
        self.attention_weights = nn.Linear(embed_dim, samples)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the published initial values: equal weights, and offsets that do not depend on the query.

        On every level, point p of head k lies p + 1 tokens from the reference at the angle 2 pi k / H. The distance is
        the larger of the two coordinates, so that the first points of eight heads are the eight neighbours.
        """
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (H, 2)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        bias = direction[:, None, None, :] * distance[:, None]  # (H, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attend from query (B, Q, C), with position, to value tokens (B, S, C) of levels `shapes` -> (B, Q, C).

        `reference` holds points (B, Q, L, 2), with offsets in tokens, or boxes (B, Q, L, 4) cxcywh, with offsets from
        their centres in halves of their sides divided by the number of points; both relative to each level's padded
        size. `padding` (B, S) is True for tokens outside their image; their projected values are zero. Raise ValueError
        for any other reference or number of levels, and if the sizes do not fit together.
        """
        value = self.value_proj(value)  # (B, S, C)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        per_point = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_point, 2))  # (B, Q, H, L, P, 2)
        weights = self._sampling_weights(query).unflatten(-1, per_point[1:])  # (B, Q, H, L, P)
        locations = self._locations(reference, offsets, shapes)  # (B, Q, H, L, P, 2)
        out = deformable_attention(value.unflatten(-1, (self.num_heads, -1)), shapes, locations, weights)
        return self.output_proj(out)

    def weights(self, chosen: slice, query: Tensor, *others: Any, **options: Any) -> Tensor:
        """Return the weights that `forward`, with these arguments, gives the sampling points of all levels for the
        `chosen` queries: (B, H, q, L*P) float32.
        """
        return self._sampling_weights(query[:, chosen]).transpose(1, 2)

    def _sampling_weights(self, query: Tensor) -> Tensor:
        """Return the weights of the sampling points, (B, Q, H, L*P), at least float32."""
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        return weights.softmax(dim=-1, dtype=_at_least_float32(weights))

    def _locations(self, reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Add `offsets` (B, Q, H, L, P, 2) to `reference` (B, Q, L, 2 or 4): (B, Q, H, L, P, 2) in [0, 1]."""
        if reference.shape[-1] not in (2, 4):
            raise ValueError(
                f"The reference {tuple(reference.shape)} has neither points nor boxes: give (B, Q, L, 2) or "
                "(B, Q, L, 4)."
            )
        if not reference.shape[2] == len(shapes) == self.num_levels:
            raise ValueError(
                f"The attention has num_levels {self.num_levels}, but the tokens have {len(shapes)} levels and the "
                f"reference has {reference.shape[2]}: set num_levels of encoder.layer and decoder.layer to the neck's."
            )
        dtype = _at_least_float32(offsets)
        reference, offsets = reference.to(dtype)[:, :, None, :, None, :], offsets.to(dtype)
        if reference.shape[-1] == 4:
            return reference[..., :2] + offsets * reference[..., 2:] * (0.5 / self.num_points)
        sizes = torch.tensor([(width, height) for height, width in shapes], dtype=dtype)
        per_point = sizes.to(offsets.device, non_blocking=True)[:, None].expand(-1, self.num_points, -1)  # (L, P, 2)
        if not reference.requires_grad:  # runs of L * P * 2 numbers are faster than runs of 2
            reference = reference.expand(-1, -1, -1, -1, self.num_points, -1).contiguous()
        return reference + offsets / per_point.contiguous()


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
