"""Multi-scale deformable attention as Triton kernels, forward and backward, for CUDA.

One program computes one (image, query, head): a tile of K = levels x points samples by D channels. Values may be
float32, bfloat16 or float16; sums are float32. The backward pass adds to the gradient of the values with atomics, whose
order changes from run to run; under `torch.use_deterministic_algorithms(True)` it uses a sorted sum instead.
"""
# mypy: allow-incomplete-defs
# (Triton reads the annotations of a kernel's arguments: only its compile-time constants may have one.)

import logging
from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from align_detr.layers import deformable_attention_torch

logger = logging.getLogger(__name__)


@triton.jit
def _points(levels, locations, weights, row, K: tl.constexpr, P: tl.constexpr, BLOCK_K: tl.constexpr):
    # Load the samples of a row, (BLOCK_K,) each: size and first token of their levels, position in tokens, weight, and
    # which of them are real.
    k = tl.arange(0, BLOCK_K)
    valid = k < K
    level = levels + k // P * 3
    height, width = tl.load(level, mask=valid, other=1), tl.load(level + 1, mask=valid, other=1)
    start = tl.load(level + 2, mask=valid, other=0)
    location = locations + (row * K + k) * 2
    x = tl.load(location, mask=valid, other=0.5).to(tl.float32) * width - 0.5
    y = tl.load(location + 1, mask=valid, other=0.5).to(tl.float32) * height - 0.5
    # Beyond these bounds all is zero. They keep the integers small; NaN passes and reaches the output.
    x = tl.where(x < -2, -2.0, tl.where(x > width + 1, width + 1.0, x))
    y = tl.where(y < -2, -2.0, tl.where(y > height + 1, height + 1.0, y))
    weight = tl.load(weights + row * K + k, mask=valid, other=0.0).to(tl.float32)
    return height, width, start, x, y, weight, valid


@triton.jit
def _tap(position, size, second: tl.constexpr):
    # The first or second tap along an axis: index (moved inside the level), whether it was inside, bilinear weight.
    first = tl.floor(position)
    index = first.to(tl.int32) + second
    inside = (index >= 0) & (index < size)
    share = position - first if second else 1 - (position - first)
    return tl.minimum(tl.maximum(index, 0), size - 1), inside, share


@triton.jit(do_not_specialize=["S", "Q"])  # one kernel for all image sizes
def _forward_kernel(
    value, levels, locations, weights, out,
    S, Q, H, D: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    height, width, start, x, y, weight, valid = _points(levels, locations, weights, row, K, P, BLOCK_K)
    d = tl.arange(0, BLOCK_D)
    source = value + (row // H // Q * S * H + row % H) * D  # the first token of this image and head
    total = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    for corner in tl.static_range(4):
        column, in_x, share_x = _tap(x, width, corner % 2)
        line, in_y, share_y = _tap(y, height, corner // 2)
        token = (start + line * width + column).to(tl.int64) * (H * D)
        inside = (in_x & in_y & valid)[:, None] & (d < D)[None, :]  # (BLOCK_K, BLOCK_D)
        sample = tl.load(source + token[:, None] + d[None, :], mask=inside, other=0.0).to(tl.float32)
        total += (share_x * share_y * weight)[:, None] * sample
    tl.store(out + row * D + d, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["S", "Q"])  # one kernel for all image sizes
def _backward_kernel(
    grad, value, levels, locations, weights, of_value, of_locations, of_weights,
    S, Q, H, D: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    ATOMIC: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    height, width, start, x, y, weight, valid = _points(levels, locations, weights, row, K, P, BLOCK_K)
    d = tl.arange(0, BLOCK_D)
    cotangent = tl.load(grad + row * D + d, mask=d < D, other=0.0).to(tl.float32)  # (BLOCK_D,)
    offset = (row // H // Q * S * H + row % H) * D
    along_x = tl.zeros((BLOCK_K,), tl.float32)
    along_y = tl.zeros((BLOCK_K,), tl.float32)
    total = tl.zeros((BLOCK_K,), tl.float32)
    for corner in tl.static_range(4):
        column, in_x, share_x = _tap(x, width, corner % 2)
        line, in_y, share_y = _tap(y, height, corner // 2)
        token = (start + line * width + column).to(tl.int64) * (H * D)
        inside = (in_x & in_y & valid)[:, None] & (d < D)[None, :]
        entry = offset + token[:, None] + d[None, :]  # (BLOCK_K, BLOCK_D)
        sample = tl.load(value + entry, mask=inside, other=0.0).to(tl.float32)
        dot = tl.sum(sample * cotangent[None, :], axis=1)
        total += share_x * share_y * dot
        along_x += (dot if corner % 2 else -dot) * share_y
        along_y += (dot if corner // 2 else -dot) * share_x
        if ATOMIC:
            change = (share_x * share_y * weight)[:, None] * cotangent[None, :]
            tl.atomic_add(of_value + entry, change, mask=inside, sem="relaxed")
    k = row * K + tl.arange(0, BLOCK_K)
    tl.store(of_weights + k, total.to(of_weights.dtype.element_ty), mask=valid)
    of_x, of_y = along_x * weight * width, along_y * weight * height
    tl.store(of_locations + k * 2, of_x.to(of_locations.dtype.element_ty), mask=valid)
    tl.store(of_locations + k * 2 + 1, of_y.to(of_locations.dtype.element_ty), mask=valid)


@lru_cache
def can_launch(device: torch.device) -> bool:
    """Return whether the kernels can be built and started on `device`, tried once; log a warning if they cannot.

    Triton needs a C compiler to start a kernel, and a GPU of compute capability 7.0.
    """
    location = torch.zeros(1, 1, 1, 1, 1, 2, device=device)
    try:
        sample(location[0, ..., 0], [(1, 1)], location, location[..., 0])
    except torch.cuda.OutOfMemoryError:
        raise  # no fault of the kernels
    except Exception as error:  # compilers and drivers fail in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(
            "Deformable attention runs in PyTorch on %s, slower than its Triton kernels, which cannot be started (%s): "
            "install a C compiler, or set CC to one.",
            device,
            reason,
        )
        return False
    return True


def sample(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Sample value (B, S, H, D) at locations (B, Q, H, L, P, 2) with weights (B, Q, H, L, P): (B, Q, H*D).

    The result has the type of `value`; sums are float32. No size may be 0.
    """
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    out = value.new_empty(*weights.shape[:2], value.shape[2] * value.shape[3])
    with torch.cuda.device_of(value):
        levels = _levels(tuple(shapes), value.device)
        _forward_kernel[_grid(weights)](value, levels, locations, weights, out, **_sizes(value, weights))
    return out


def sample_backward(
    grad: Tensor, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of value, locations and weights, in their types, from that of the output (B, Q, H*D)."""
    grad, value, locations, weights = (x.contiguous() for x in (grad, value, locations, weights))
    atomic = not torch.are_deterministic_algorithms_enabled()
    of_value = torch.zeros(value.shape if atomic else 1, dtype=torch.float32, device=value.device)
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    with torch.cuda.device_of(value):
        arguments = (grad, value, _levels(tuple(shapes), value.device), locations, weights)
        _backward_kernel[_grid(weights)](
            *arguments, of_value, of_locations, of_weights, **_sizes(value, weights), ATOMIC=atomic
        )
    if not atomic:
        of_value = deformable_attention_torch.value_gradient(grad, value, shapes, locations, weights)
    return of_value.to(value.dtype), of_locations, of_weights


def _grid(weights: Tensor) -> tuple[int]:
    return (weights.shape[:3].numel(),)


def _sizes(value: Tensor, weights: Tensor) -> dict[str, int]:
    """Return the kernels' arguments that follow from the shapes."""
    channels, points = value.shape[-1], weights.shape[3] * weights.shape[4]
    block_k, block_d = triton.next_power_of_2(points), triton.next_power_of_2(channels)
    return {
        "S": value.shape[1],
        "Q": weights.shape[1],
        "H": value.shape[2],
        "D": channels,
        "K": points,
        "P": weights.shape[4],
        "BLOCK_K": block_k,
        "BLOCK_D": block_d,
        "num_warps": min(8, max(1, block_k * block_d // 512)),  # 16 numbers of a tile per thread
    }


@lru_cache(maxsize=4096)
def _levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Return height, width and first token of each level (L, 3) int32.

    The copy waits, once per new set of sizes, since other streams and captured graphs read the kept tensor, too. A
    separate stream makes it wait for itself alone.
    """
    rows, start = [], 0
    for height, width in shapes:
        rows.append([height, width, start])
        start += height * width
    with torch.cuda.stream(_copying_stream(device)):
        return torch.tensor(rows, dtype=torch.int32, device=device)


@lru_cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None
