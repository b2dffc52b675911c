"""Products of the sampling matrix equal those of a dense one, also if rows have more entries than columns."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from align_detr.layers import sampling_matrix
from align_detr.layers.deformable_attention import deformable_attention
from align_detr.layers.sampling_matrix import SamplingMatrix

ROWS, ENTRIES, CHANNELS = 5, 6, 3


@pytest.fixture(params=["host", "elsewhere"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the products of the CPU, or those of other devices."""
    if request.param == "elsewhere":
        monkeypatch.setattr(sampling_matrix, "_scatter_on_host", sampling_matrix._scatter_sorted)
        monkeypatch.setattr(sampling_matrix, "_dots_on_host", sampling_matrix._dots_elsewhere)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("columns", [1, ENTRIES - 1, ENTRIES, ENTRIES + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_equal_those_of_a_dense_matrix(columns: int, dtype: torch.dtype) -> None:
    """Entries of one row and column add up; the last column has none."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(max(1, columns - 1), (ROWS, ENTRIES), generator=generator)
    weight = torch.randn(ROWS, ENTRIES, generator=generator, dtype=dtype)
    left, right = (torch.randn(n, CHANNELS, generator=generator, dtype=dtype) for n in (ROWS, columns))
    dense = torch.zeros(ROWS, columns, dtype=dtype).scatter_add(1, index, weight)
    matrix = SamplingMatrix(index.to(torch.int32), weight)
    assert_close(matrix.gather(right), dense @ right, atol=1e-5, rtol=1e-5)
    assert_close(matrix.scatter(left, columns), dense.t() @ left, atol=1e-5, rtol=1e-5)
    assert_close(matrix.dots(left, right), (left @ right.t()).gather(1, index), atol=1e-5, rtol=1e-5)


def with_grid_sample(value: Tensor, shape: tuple[int, int], locations: Tensor, weights: Tensor) -> Tensor:
    """Sample one level: value (B, S, H, D), locations (B, Q, H, P, 2), weights (B, Q, H, P) -> (B, Q, H*D)."""
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shape)
    samples = F.grid_sample(maps, locations.transpose(1, 2).flatten(0, 1) * 2 - 1, align_corners=False)
    samples = (samples.unflatten(0, value.shape[::2][:2]) * weights.transpose(1, 2)[:, :, None]).sum(-1)
    return samples.permute(0, 3, 1, 2).flatten(2)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("shapes", [[(1, 1)], [(1, 2)], [(2, 2)], [(2, 2), (1, 1), (1, 1), (1, 1)]])
@pytest.mark.parametrize("images", [1, 2])
def test_maps_of_few_tokens_equal_grid_sample(shapes: list[tuple[int, int]], images: int) -> None:
    """A row has 4 corners x 4 points per level; one image has at most 7 tokens of 2 heads."""
    generator = torch.Generator().manual_seed(0)
    sizes, rows = [h * w for h, w in shapes], (images, 3, 2, len(shapes), 4)
    value = torch.randn(images, sum(sizes), 2, CHANNELS, generator=generator)
    locations, weights = (torch.rand(*rows, *n, generator=generator) * 1.4 - 0.2 for n in ((2,), ()))
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    ours = deformable_attention(value, shapes, locations, weights)
    theirs = sum(
        with_grid_sample(tokens, shape, locations[:, :, :, level], weights[:, :, :, level])
        for level, (tokens, shape) in enumerate(zip(value.split(sizes, dim=1), shapes, strict=True))
    )
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    grad = torch.randn(ours.shape, generator=generator)
    for x, y in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True):
        assert_close(x, y, atol=1e-5, rtol=1e-5)
