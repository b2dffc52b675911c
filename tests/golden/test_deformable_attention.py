"""Multi-scale deformable attention against the reference numbers: operator and module."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.layers import sampling_matrix
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention, deformable_attention
from support.golden import Fixture, fixtures
from support.triton import interpret

Arguments = tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]


def shapes_of(fixture: Fixture) -> list[tuple[int, int]]:
    return [tuple(shape) for shape in fixture.input["spatial_shapes"].tolist()]


def arguments_of(fixture: Fixture) -> Arguments:
    value, locations, weights = (fixture.input[name] for name in ("value", "sampling_locations", "attention_weights"))
    return value, shapes_of(fixture), locations, weights


def check(fixture: Fixture, out: Tensor, of_value: Tensor, of_locations: Tensor, of_weights: Tensor) -> None:
    assert_close(out, fixture.output["out"], atol=1e-5, rtol=0)
    for ours, name in [(of_value, "value"), (of_locations, "sampling_locations"), (of_weights, "attention_weights")]:
        expected = fixture.grad[name]
        assert_close(ours, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)


@fixtures("msda_functional*")
@pytest.mark.parametrize("products", ["host", "elsewhere"])
def test_operator(fixture: Fixture, products: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if products == "elsewhere":  # what other devices than the CPU run
        monkeypatch.setattr(sampling_matrix, "_scatter_on_host", sampling_matrix._scatter_sorted)
        monkeypatch.setattr(sampling_matrix, "_dots_on_host", sampling_matrix._dots_elsewhere)
    value, shapes, locations, weights = arguments_of(fixture)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    out = deformable_attention(value, shapes, locations, weights)
    check(fixture, out.detach(), *torch.autograd.grad(out, inputs, fixture.input["cotangent"]))


@fixtures("msda_functional*")
def test_triton_kernels(fixture: Fixture, tmp_path: Path) -> None:
    for numbers in (fixture.input, fixture.output, fixture.grad):  # one image: the interpreter is slow
        numbers.update({name: x[:1] for name, x in numbers.items() if name != "spatial_shapes"})
    value, shapes, locations, weights = arguments_of(fixture)
    case = {"value": value, "shapes": shapes, "locations": locations, "weights": weights}
    check(fixture, *interpret(tmp_path, [{**case, "grad": fixture.input["cotangent"], "deterministic": False}])[0])


def module_of(fixture: Fixture) -> MultiScaleDeformableAttention:
    sizes = {name: fixture.meta[name] for name in ("embed_dim", "num_heads", "num_levels", "num_points")}
    return MultiScaleDeformableAttention(**sizes)


@fixtures("msda_module*")
def test_module(fixture: Fixture) -> None:
    module = module_of(fixture)
    module.load_state_dict(fixture.weights)
    names = ("query", "query_pos", "value", "reference_points_4")
    inputs = {name: fixture.input[name].requires_grad_() for name in names}
    query, position, value, boxes = inputs.values()
    padding = fixture.input["key_padding_mask"]
    assert padding.any() and not padding.all(), "the fixture has padding"

    def attend(reference: Tensor) -> Tensor:
        return query + module(query + position, reference, value, shapes_of(fixture), padding)

    assert_close(attend(fixture.input["reference_points_2"]), fixture.output["out_ref2"], atol=1e-5, rtol=0)
    out = attend(boxes)
    assert_close(out, fixture.output["out_ref4"], atol=1e-5, rtol=0)
    (out * fixture.input["cotangent"]).sum().backward()
    grads = {name: x.grad for name, x in inputs.items()}
    grads |= {f"w/{name}": x.grad for name, x in module.named_parameters()}
    assert grads.keys() == fixture.grad.keys()
    for name, expected in fixture.grad.items():
        assert_close(
            grads[name], expected, atol=2e-5 * expected.abs().max().item(), rtol=0, msg=lambda m, n=name: n + m
        )


@fixtures("msda_module*")
def test_initial_offsets(fixture: Fixture) -> None:
    module = module_of(fixture)
    expected = fixture.output["default_init_sampling_offsets_bias"]
    assert_close(module.sampling_offsets.bias.detach(), expected, atol=1e-6, rtol=0)
    for parameter in (module.sampling_offsets.weight, module.attention_weights.weight, module.attention_weights.bias):
        assert not parameter.any()
