"""The module of multi-scale deformable attention: locations, padding, precision, initial values."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.layers import deformable_attention as operators
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention, deformable_attention


def make_module() -> MultiScaleDeformableAttention:
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(embed_dim=16, num_heads=4, num_levels=2, num_points=3)
    for linear in (module.sampling_offsets, module.attention_weights):
        torch.nn.init.normal_(linear.weight, std=0.1)
    return module


def module_inputs() -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
    """Return query, reference boxes, value and shapes."""
    generator = torch.Generator().manual_seed(0)
    query, value = torch.randn(2, 5, 16, generator=generator), torch.randn(2, 16, 16, generator=generator)
    return query, torch.rand(2, 5, 2, 4, generator=generator), value, [(3, 4), (2, 2)]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        # two points, one token right of and one above the reference, in a map of 8 x 4 tokens: (1/8, 0) and (0, -1/4)
        ([0.5, 0.5], [0.5 + 0.0625, 0.5 - 0.125]),
        # half of the box divided by two points: (0.4 / 4, 0) and (0, -0.8 / 4)
        ([0.5, 0.5, 0.4, 0.8], [0.5 + 0.05, 0.5 - 0.1]),
    ],
)
def test_module_reads_where_the_offsets_point(reference: list[float], expected: list[float]) -> None:
    module = MultiScaleDeformableAttention(embed_dim=2, num_heads=1, num_levels=1, num_points=2)
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0, 0.0, -1.0]))
        for linear in (module.value_proj, module.output_proj):
            linear.weight.copy_(torch.eye(2))
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(8) + 0.5) / 8, indexing="ij")
    value = torch.stack([x, y], dim=-1).view(1, 32, 2)  # every token says where it lies
    out = module(torch.zeros(1, 1, 2), torch.tensor(reference).view(1, 1, 1, -1), value, [(4, 8)])
    assert_close(out.flatten().tolist(), expected, atol=1e-6, rtol=0)


def test_module_does_not_read_padding() -> None:
    module, (query, reference, value, shapes) = make_module(), module_inputs()
    padding = torch.zeros(2, 16, dtype=torch.bool)
    padding[1, ::3] = True
    value.requires_grad_()
    out = module(query, reference, value, shapes, padding)
    (of_value,) = torch.autograd.grad(out.sum(), value)
    assert not of_value[padding].any() and of_value[~padding].any()
    assert_close(module(query, reference, torch.where(padding[..., None], 9.0, value), shapes, padding), out)


def test_module_under_autocast_keeps_places_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (query, reference, value, shapes) = make_module(), module_inputs()
    types = {}

    def spy(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
        types.update(value=value.dtype, locations=locations.dtype, weights=weights.dtype)
        return deformable_attention(value, shapes, locations, weights)

    monkeypatch.setattr(operators, "deformable_attention", spy)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(query, reference, value, shapes)
    assert types == {"value": torch.bfloat16, "locations": torch.float32, "weights": torch.float32}
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), module(query, reference, value, shapes), atol=0.05, rtol=0)
    out.float().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_module_starts_again() -> None:
    module = make_module()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    module.reset_parameters()
    # four heads look right, down, left and up, at 1, 2 and 3 tokens, on both levels
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    expected = directions[:, None, None] * torch.tensor([1.0, 2.0, 3.0])[:, None].expand(2, 3, 1)
    assert_close(module.sampling_offsets.bias.detach().view(4, 2, 3, 2), expected, atol=1e-6, rtol=0)
    for zero in (module.sampling_offsets.weight, module.attention_weights.weight, module.output_proj.bias):
        assert not zero.any()
    assert not module.attention_weights.bias.any() and not module.value_proj.bias.any()
    bound = (6 / 32) ** 0.5  # Xavier: 16 in, 16 out
    for matrix in (module.value_proj.weight, module.output_proj.weight):
        assert 0.9 * bound < matrix.abs().max() <= bound


def test_module_names_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="embed_dim 10 is not a multiple of num_heads 4"):
        MultiScaleDeformableAttention(embed_dim=10, num_heads=4, num_levels=1, num_points=1)
    module, (query, reference, value, shapes) = make_module(), module_inputs()
    with pytest.raises(ValueError, match="neither points"):
        module(query, reference[..., :3], value, shapes)
    with pytest.raises(ValueError, match="num_levels 2, but the tokens have 1 levels and the reference has 2"):
        module(query, reference, value, shapes[:1])
