"""Time and peak memory of multi-scale deformable attention, forward and backward, compared with other formulations.

    python benchmarks/deformable_attention.py

The operator is compared with one `grid_sample` per level (the form of DETR code without compiled extensions) and, for
few tokens, with a dense matrix (queries x tokens) and a product; the module is compared with that of Hugging Face's
transformers, where installed. Outputs and gradients are checked first: they are equal, except for a thousandth of the
gradients, where a sampling point lies on the border between two tokens, its slope jumps and roundings differ. On CUDA
the run also measures the PyTorch path, bfloat16 values, and the bandwidth of the bytes read and written at least once,
next to that of a copy. The candidates take turns; the times are medians. Memory is the peak above the level before.
"""

import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from align_detr.layers import deformable_attention_torch
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention, deformable_attention

try:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr import modeling_deformable_detr as hugging_face
except ImportError:
    hugging_face = None

R50 = [(100, 134), (50, 67), (25, 34), (13, 17)]
SMALL = [(50, 67), (25, 34), (13, 17), (7, 9)]
DEMO = [(16, 16), (8, 8), (4, 4)]
POINTS, REPEATS = 4, 7
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FEW_TOKENS = 400

Function = Callable[..., Tensor]


@dataclass
class Case:
    """One size; `queries` None means one query per token, as in the encoder."""

    name: str
    shapes: list[tuple[int, int]]
    images: int
    queries: int | None
    embed_dim: int = 256
    heads: int = 8

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries (B, Q, C), reference points (B, Q, L, 2), tokens (B, S, C) and offsets in tokens."""
        generator = torch.Generator().manual_seed(0)
        tokens = sum(h * w for h, w in self.shapes)
        if self.queries is None:
            grids = [
                torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in self.shapes
            ]
            reference = torch.cat(grids).flip(-1).expand(self.images, -1, -1)
        else:
            reference = torch.rand(self.images, self.queries, 2, generator=generator)
        reference = reference[:, :, None].expand(-1, -1, len(self.shapes), -1).contiguous()
        size = (*reference.shape[:2], self.embed_dim)
        query, value = torch.randn(size, generator=generator), torch.randn(self.images, tokens, self.embed_dim)
        offsets = 2 * torch.randn(*size[:2], self.heads, len(self.shapes), POINTS, 2, generator=generator)
        return tuple(x.to(DEVICE) for x in (query, reference, value, offsets))


CASES = [
    Case("R50 encoder", R50, 1, None),
    Case("R50 decoder, 300 queries", R50, 1, 300),
    Case("R50 decoder, 1,100 queries", R50, 1, 1100),
    Case("4,484 tokens, encoder", SMALL, 1, None),
    *(Case(f"demo, {b} images, {q or 336} queries", DEMO, b, q, 128, 4) for b in (8, 16) for q in (50, None)),
]


def with_grid_sample(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Sample with one `grid_sample` per level, in the sampling points' type, so that they stay exact."""
    batch, _, heads, channels = value.shape
    queries, samples = weights.shape[1], []
    grids = 2 * locations - 1
    for level, tokens in enumerate(value.to(locations.dtype).split([h * w for h, w in shapes], dim=1)):
        maps = tokens.flatten(2).transpose(1, 2).reshape(batch * heads, channels, *shapes[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    out = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1)
    return out.view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype).contiguous()


def with_dense_matrix(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Multiply the values by one (queries x tokens) matrix per head, filled by `scatter_add`."""
    indices, entries, start = [], [], 0
    for level, (height, width) in enumerate(shapes):
        place = locations[:, :, :, level] * locations.new_tensor([width, height]) - 0.5
        first = place.detach().floor()
        for corner in torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=value.device):
            x, y = (at := first + corner).unbind(-1)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            share = (1 - (place - at).abs()).prod(-1) * inside * weights[:, :, :, level]
            indices.append(start + (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long())
            entries.append(share)
        start += height * width
    index, entry = (torch.cat(x, dim=-1).transpose(1, 2) for x in (indices, entries))  # (B, H, Q, 4*L*P)
    matrix = entry.new_zeros(*index.shape[:3], start).scatter_add(-1, index, entry)
    return (matrix @ value.transpose(1, 2)).transpose(1, 2).flatten(2)


class PyTorchPath(torch.autograd.Function):
    """The operator's PyTorch path on any device."""

    @staticmethod
    def forward(ctx, value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
        """Sample as the operator does."""
        ctx.shapes = shapes
        ctx.save_for_backward(value, locations, weights)
        return deformable_attention_torch.sample(value, shapes, locations, weights)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, sampling points and weights."""
        value, *others = ctx.saved_tensors
        grads = deformable_attention_torch.sample_backward(grad, value, ctx.shapes, *others)
        return grads[0], None, *grads[1:]


def run(function: Function, inputs: list[Tensor], grad: Tensor) -> tuple[float, float, list[Tensor]]:
    """Return the seconds of forward and backward, and output and gradients."""
    marks = [mark()]
    out = function(*inputs)
    marks.append(mark())
    grads = torch.autograd.grad(out, inputs, grad.to(out.dtype))
    marks.append(mark())
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
    else:
        seconds = [b - a for a, b in pairwise(marks)]
    return *seconds, [out.detach(), *grads]


def mark() -> "float | torch.cuda.Event":
    """Return a point in time, of the device if there is one."""
    if DEVICE == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def peak_memory(function: Function, inputs: list[Tensor], grad: Tensor) -> float | None:
    """Return the peak in megabytes above the level before; None where the system does not report it."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(function, inputs, grad)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run(function, inputs, grad)
        return (_status("VmHWM") - before) / 1e3
    except (OSError, AttributeError):
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@dataclass
class Figures:
    """Medians in seconds, and megabytes."""

    forward: float
    both: float
    memory: float | None


def compare(candidates: dict[str, Function], inputs: list[Tensor], tolerance: float) -> dict[str, Figures]:
    """Check that all candidates return what the last returns, and measure them in turns."""
    inputs = [x.requires_grad_() for x in inputs]
    with torch.no_grad():
        grad = torch.randn_like(next(iter(candidates.values()))(*inputs))
    *_, expected = run(list(candidates.values())[-1], inputs, grad)
    for name, function in candidates.items():
        *_, results = run(function, inputs, grad)
        for i, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
            off = (ours - theirs).abs() > tolerance * theirs.abs().max()
            if off.float().mean().item() > (1e-3 if i else 0):
                raise SystemExit(f"{name}: {'gradient' if i else 'output'} {i} differs in {off.sum().item()} numbers.")
    del expected, results
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(REPEATS):
        for name, function in candidates.items():
            forward, backward, _ = run(function, inputs, grad)
            times[name].append((forward, forward + backward))
    return {
        name: Figures(*map(statistics.median, zip(*times[name], strict=True)), peak_memory(function, inputs, grad))
        for name, function in candidates.items()
    }


def compare_operators(case: Case, dtype: torch.dtype) -> dict[str, Figures]:
    """Compare the operator with the other formulations."""
    _, reference, value, offsets = case.inputs()
    sizes = offsets.new_tensor([(w, h) for h, w in case.shapes])[:, None]
    locations = reference[:, :, None, :, None] + offsets / sizes
    weights = torch.rand_like(locations[..., 0]).flatten(3).softmax(-1).view(locations.shape[:-1])
    candidates: dict[str, Function] = {"ours": deformable_attention}
    if DEVICE == "cuda":
        candidates["ours, PyTorch"] = PyTorchPath.apply
    if value.shape[1] <= FEW_TOKENS and dtype == torch.float32:
        candidates["dense matrix"] = with_dense_matrix
    candidates["grid_sample"] = with_grid_sample
    bound = {
        name: lambda v, x, w, function=function: function(v, case.shapes, x, w) for name, function in candidates.items()
    }
    value = value.unflatten(-1, (case.heads, -1)).to(dtype)
    return compare(bound, [value, locations, weights], 1e-4 if dtype == torch.float32 else 2e-2)


def compare_modules(case: Case) -> dict[str, Figures]:
    """Compare the module with that of transformers, with the same weights."""
    query, reference, value, _ = case.inputs()
    sizes = {"num_levels": len(case.shapes), "num_points": POINTS}
    ours = MultiScaleDeformableAttention(embed_dim=case.embed_dim, num_heads=case.heads, **sizes).to(DEVICE)
    config = DeformableDetrConfig(d_model=case.embed_dim, num_feature_levels=len(case.shapes))
    theirs = hugging_face.DeformableDetrMultiscaleDeformableAttention(config, case.heads, POINTS).to(DEVICE)
    torch.nn.init.normal_(ours.sampling_offsets.weight, std=0.1)
    theirs.load_state_dict(ours.state_dict())
    shapes = torch.tensor(case.shapes, device=DEVICE)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])

    def hugging(query: Tensor, reference: Tensor, value: Tensor) -> Tensor:
        places = {"spatial_shapes": shapes, "spatial_shapes_list": case.shapes, "level_start_index": starts}
        return theirs(query, encoder_hidden_states=value, reference_points=reference, **places)[0]

    candidates = {"ours": lambda q, r, v: ours(q, r, v, case.shapes), "transformers": hugging}
    return compare(candidates, [query, reference, value], 1e-4)


def report(title: str, tables: dict[str, dict[str, Figures]]) -> None:
    """Print one table; ratios are the other's time over this operator's."""
    print(f"\n### {title}\n\n| size | formulation | forward, ms | forward + backward, ms | ratio | ratio | peak, MB |")
    print("|---|---|---|---|---|---|---|")
    for size, figures in tables.items():
        ours = figures["ours"]
        for name, x in figures.items():
            ratios = f"{x.forward / ours.forward:.2f} | {x.both / ours.both:.2f}"
            memory = "-" if x.memory is None else f"{x.memory:.0f}"
            print(f"| {size} | {name} | {x.forward * 1e3:.2f} | {x.both * 1e3:.2f} | {ratios} | {memory} |")


def report_bandwidth(tables: dict[str, dict[str, Figures]], dtype: torch.dtype) -> None:
    """Print the bandwidth of the bytes that the forward pass reads and writes at least once."""
    source = torch.empty(1 << 28, device=DEVICE)
    target, times = torch.empty_like(source), []
    for _ in range(REPEATS):
        start = mark()
        target.copy_(source)
        stop = mark()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    print(f"\nA copy: {2 * source.nbytes / statistics.median(times) / 1e9:.0f} GB/s")
    for case in CASES:
        _, _, value, offsets = case.inputs()
        size = dtype.itemsize
        out = offsets.shape[0] * offsets.shape[1] * case.embed_dim
        moved = (value.numel() + out) * size + offsets.numel() * 4 * 3 // 2
        print(f"- {case.name}, forward: {moved / tables[case.name]['ours'].forward / 1e9:.0f} GB/s")


def main() -> None:
    """Print all tables."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{platform.machine()} CPU"
    print(f"{device}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, Python {sys.version.split()[0]}")
    print("Ratios are the other's time over this operator's, forward and forward + backward.")
    for dtype in (torch.float32, torch.bfloat16) if DEVICE == "cuda" else (torch.float32,):
        tables = {case.name: compare_operators(case, dtype) for case in CASES}
        report(f"Operator, {dtype}", tables)
        if DEVICE == "cuda":
            report_bandwidth(tables, dtype)
    if hugging_face is None:
        print("\ntransformers is not installed: its module is left out.")
    else:
        report("Module", {case.name: compare_modules(case) for case in CASES})


if __name__ == "__main__":
    main()
