"""Multi-scale deformable attention: the operator's paths against plain formulas, compiled, exported, and as kernels."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from align_detr.layers import deformable_attention as operators
from align_detr.layers import deformable_attention_torch, sampling_matrix
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention, deformable_attention
from support.triton import interpret

SHAPES = [(5, 7), (4, 4), (1, 6), (3, 1), (1, 1)]


def make_inputs(
    shapes: list[tuple[int, int]] = SHAPES, *, images: int = 3, queries: int = 5, heads: int = 2, channels: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, locations (also outside the levels) and weights, with three points."""
    generator = torch.Generator().manual_seed(0)
    tokens, points = sum(h * w for h, w in shapes), (images, queries, heads, len(shapes), 3)
    value = torch.randn(images, tokens, heads, channels, generator=generator)
    locations = torch.rand(*points, 2, generator=generator) * 1.8 - 0.4
    return value, locations, torch.rand(points, generator=generator)


def with_grid_sample(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute the formulation with one `grid_sample` per level."""
    out = 0
    for level, tokens in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        maps = tokens.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shapes[level])
        grid = locations[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
        samples = F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)  # (B*H, D, Q, P)
        samples = samples.unflatten(0, value.shape[::2][:2]) * weights[:, :, :, level].transpose(1, 2)[:, :, None]
        out = out + samples.sum(-1).permute(0, 3, 1, 2).flatten(2)
    return out


def outputs_and_gradients(function, value: Tensor, shapes, locations: Tensor, weights: Tensor) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in (value, locations, weights)]
    out = function(inputs[0], shapes, *inputs[1:])
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


@pytest.fixture(params=["whole", "in groups", "in parts", "elsewhere"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select the PyTorch path with few rows, with many, and as it runs on devices other than the CPU."""
    row = 4 * len(SHAPES) * 3  # entries; an image has ten rows
    if request.param == "in groups":  # of two images
        monkeypatch.setattr(deformable_attention_torch, "ENTRIES_ON_HOST", 25 * row)
    if request.param == "in parts":  # of two rows
        monkeypatch.setattr(deformable_attention_torch, "ENTRIES_ON_HOST", 2 * row)
    if request.param == "elsewhere":
        monkeypatch.setattr(sampling_matrix, "_scatter_on_host", sampling_matrix._scatter_sorted)
        monkeypatch.setattr(sampling_matrix, "_dots_on_host", sampling_matrix._dots_elsewhere)
    return request.param


def test_output_is_the_sum_of_bilinear_samples() -> None:
    value, locations, weights = make_inputs(images=1, queries=2, channels=1)
    expected, start = torch.zeros(1, 2, 2), 0
    for level, (height, width) in enumerate(SHAPES):
        for q, h, p in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(3)).tolist():
            x, y = (locations[0, q, h, level, p] * torch.tensor([width, height]) - 0.5).tolist()
            for i in range(height):
                for j in range(width):  # a token's share falls linearly with the distance, to nothing at one token
                    share = max(0, 1 - abs(x - j)) * max(0, 1 - abs(y - i)) * weights[0, q, h, level, p]
                    expected[0, q, h] += share * value[0, start + i * width + j, h, 0]
        start += height * width
    assert_close(deformable_attention(value, SHAPES, locations, weights), expected, atol=1e-5, rtol=1e-5)


def test_forward_and_gradients_equal_grid_sample(path: str) -> None:
    value, locations, weights = make_inputs()
    ours = outputs_and_gradients(deformable_attention, value, SHAPES, locations, weights)
    theirs = outputs_and_gradients(with_grid_sample, value, SHAPES, locations, weights)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x, y, atol=1e-5 * y.abs().max().item(), rtol=1e-5)


def test_gradients_at_token_centres_and_edges_equal_grid_sample(path: str) -> None:
    shapes = [(4, 8), (2, 2)]  # powers of two: the locations below are exact
    value, locations, weights = make_inputs(shapes)
    eighths = (locations * 8).round() + torch.tensor([-0.5, 0.0])
    locations = (eighths / torch.tensor([[8.0, 4.0], [2.0, 2.0]])[:, None]).contiguous()
    ours = outputs_and_gradients(deformable_attention, value, shapes, locations, weights)
    theirs = outputs_and_gradients(with_grid_sample, value, shapes, locations, weights)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x, y, atol=1e-5 * y.abs().max().item(), rtol=1e-5)


def test_derivatives_in_double_precision() -> None:
    value, locations, weights = (x.double().requires_grad_() for x in make_inputs(images=2, queries=2, channels=2))
    assert torch.autograd.gradcheck(lambda v, x, w: deformable_attention(v, SHAPES, x, w), (value, locations, weights))


def test_places_without_a_number(path: str) -> None:
    value, locations, weights = make_inputs(queries=3, heads=3)
    locations[:, 0] = torch.inf
    locations[:, 1, 0] = torch.nan
    out, of_value, _, _ = outputs_and_gradients(deformable_attention, value, SHAPES, locations, weights)
    assert not out[:, 0].any(), "nothing lies at infinity"
    assert out[:, 1, :4].isnan().all(), "not-a-number shows"
    assert torch.isfinite(out[:, 1, 4:]).all() and torch.isfinite(out[:, 2]).all()
    assert torch.isfinite(of_value[:, :, 1]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_with_exact_places(dtype: torch.dtype) -> None:
    value, locations, weights = make_inputs()
    ours = outputs_and_gradients(deformable_attention, value.to(dtype), SHAPES, locations, weights)
    assert [x.dtype for x in ours] == [dtype, dtype, torch.float32, torch.float32]
    exact = outputs_and_gradients(deformable_attention, value.to(dtype).float(), SHAPES, locations, weights)
    eps = torch.finfo(dtype).eps  # one rounding, at the end; the gradient that arrives is rounded, too
    assert_close(ours[0].float(), exact[0], atol=0, rtol=eps)
    for x, y in zip(ours[1:], exact[1:], strict=True):
        assert_close(x.float(), y, atol=2 * eps * y.abs().max().item(), rtol=0)


def test_images_do_not_touch_each_other(path: str) -> None:
    value, locations, weights = make_inputs()
    whole = deformable_attention(value, SHAPES, locations, weights)
    order = [2, 0, 1]
    assert_close(deformable_attention(value[order], SHAPES, locations[order], weights[order]), whole[order])
    one = deformable_attention(value[1:2], SHAPES, locations[1:2], weights[1:2])
    assert_close(one, whole[1:2], atol=1e-6, rtol=1e-6)


def test_inputs_may_lie_in_memory_in_any_order() -> None:
    inputs = make_inputs()
    expected = outputs_and_gradients(deformable_attention, inputs[0], SHAPES, *inputs[1:])
    spread = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    for strange in (spread, turned):
        out = deformable_attention(strange[0].requires_grad_(), SHAPES, *(x.requires_grad_() for x in strange[1:]))
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results = [out, *torch.autograd.grad(out, strange, grad.transpose(0, 1).contiguous().transpose(0, 1))]
        for x, y in zip(results, expected, strict=True):
            assert_close(x, y, atol=0, rtol=0)


@pytest.mark.parametrize(("images", "queries"), [(0, 4), (2, 0)])
def test_no_images_or_no_queries(images: int, queries: int) -> None:
    inputs = make_inputs(images=images, queries=queries)
    out, *grads = outputs_and_gradients(deformable_attention, inputs[0], SHAPES, *inputs[1:])
    assert out.shape == (images, queries, 8)
    for grad, x in zip(grads, inputs, strict=True):
        assert grad.shape == x.shape and not grad.any()


@pytest.mark.usefixtures("path")
def test_the_gradient_of_value_alone_is_the_same() -> None:
    value, locations, weights = make_inputs()
    grad = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    arguments = (grad, value, SHAPES, locations, weights)
    together, *_ = deformable_attention_torch.sample_backward(*arguments)
    assert_close(deformable_attention_torch.value_gradient(*arguments), together, rtol=0, atol=0)


def test_sizes_that_do_not_fit_raise() -> None:
    value, locations, weights = make_inputs()
    with pytest.raises(ValueError, match="do not have the 61 tokens"):
        deformable_attention(value, SHAPES[1:], locations, weights)
    with pytest.raises(ValueError, match="B, Q, H, L, P, 2"):
        deformable_attention(value, SHAPES, locations[:, 1:], weights)
    with pytest.raises(ValueError, match="H = 2 heads"):
        deformable_attention(value, SHAPES, locations[:, :, :1], weights[:, :, :1])


needs_operators = pytest.mark.skipif(
    not hasattr(torch.library, "custom_op"), reason="registered operators need PyTorch 2.4"
)


@needs_operators
def test_operator_is_registered_correctly() -> None:
    value, locations, weights = (x.requires_grad_() for x in make_inputs(images=1, queries=2))
    flat = [size for shape in SHAPES for size in shape]
    torch.library.opcheck(torch.ops.align_detr.deformable_attention.default, (value, flat, locations, weights))


@needs_operators
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_operator(backend: str, dynamic: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(deformable_attention, backend=backend, fullgraph=True, dynamic=dynamic)
    for shapes in (SHAPES, [(h + 1, w + 2) for h, w in SHAPES]):
        inputs = make_inputs(shapes)
        ours = outputs_and_gradients(compiled, inputs[0], shapes, *inputs[1:])
        for x, y in zip(ours, outputs_and_gradients(deformable_attention, inputs[0], shapes, *inputs[1:]), strict=True):
            assert_close(x, y, atol=0, rtol=0)


@needs_operators
def test_exported_module() -> None:
    module = MultiScaleDeformableAttention(embed_dim=8, num_heads=2, num_levels=2, num_points=3).eval()
    shapes, generator = [(3, 4), (2, 2)], torch.Generator().manual_seed(0)
    query, value = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 16, 8, generator=generator)
    arguments = (query, torch.rand(2, 5, 2, 4, generator=generator), value, shapes)
    exported = torch.export.export(module, arguments)
    assert "align_detr.deformable_attention.default" in exported.graph_module.code
    assert_close(exported.module()(*arguments), module(*arguments))


def test_function_of_older_pytorch_is_the_same() -> None:
    value, locations, weights = make_inputs()
    function = operators.DeformableAttentionFunction.apply
    flat = [size for shape in SHAPES for size in shape]
    old = outputs_and_gradients(lambda v, _, x, w: function(v, flat, x, w), value, SHAPES, locations, weights)
    for x, y in zip(old, outputs_and_gradients(deformable_attention, value, SHAPES, locations, weights), strict=True):
        assert_close(x, y, atol=0, rtol=0)


def test_triton_kernels_equal_the_pytorch_path(tmp_path: Path) -> None:
    cases = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for channels, deterministic in [(4, False), (5, True)]:
            queries = 2 if dtype == torch.float32 else 1  # the interpreter is slow
            value, locations, weights = make_inputs(images=2, queries=queries, channels=channels)
            locations[0, 0, 0, 0, :2] = torch.tensor([[torch.inf, 0.5], [-torch.inf, -1e9]])
            case = {"value": value.to(dtype), "shapes": SHAPES, "locations": locations, "weights": weights}
            grad = torch.randn(2, queries, 2 * channels, generator=torch.Generator().manual_seed(2)).to(dtype)
            cases.append({**case, "grad": grad, "deterministic": deterministic})
    for case, results in zip(cases, interpret(tmp_path, cases), strict=True):
        inputs = (case["value"], case["shapes"], case["locations"], case["weights"])
        expected = (
            deformable_attention_torch.sample(*inputs),
            *deformable_attention_torch.sample_backward(case["grad"], *inputs),
        )
        # the interpreter cuts bfloat16 off where a device rounds: one unit of the last digit
        rtol = 2e-6 if case["value"].dtype == torch.float32 else torch.finfo(case["value"].dtype).eps
        for ours, theirs in zip(results, expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert_close(ours, theirs, atol=2e-6 * theirs.abs().max().item(), rtol=rtol)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("deterministic", [False, True])
def test_gpu_equals_cpu(dtype: torch.dtype, deterministic: bool) -> None:
    value, locations, weights = make_inputs(queries=70, heads=8, channels=32)
    torch.use_deterministic_algorithms(deterministic)
    try:
        ours = outputs_and_gradients(
            lambda v, s, x, w: deformable_attention(v.cuda(), s, x.cuda(), w.cuda()).cpu(),
            *(value.to(dtype), SHAPES, locations, weights),
        )
    finally:
        torch.use_deterministic_algorithms(False)
    expected = outputs_and_gradients(deformable_attention, value.to(dtype), SHAPES, locations, weights)
    for x, y in zip(ours, expected, strict=True):
        assert_close(x, y, atol=2 * max(1e-5, torch.finfo(y.dtype).eps) * y.abs().max().item(), rtol=0)
