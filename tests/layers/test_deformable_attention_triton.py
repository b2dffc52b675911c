"""The Triton kernels without a GPU: compiled for one, and what happens where they cannot be started."""

import importlib
import logging
import re
from types import SimpleNamespace

import pytest
import torch

from align_detr.layers import deformable_attention as operators
from align_detr.layers import deformable_attention_torch

triton = pytest.importorskip("triton")
compiler = pytest.importorskip("triton.compiler")
kernels = importlib.import_module("align_detr.layers.deformable_attention_triton")

CUDA = ("cuda", 80, 32)


def compile_for_cuda(kernel: object, types: dict[str, str], constants: dict[str, int]) -> str:
    """Return the PTX code; arguments that are no constants have the Triton types of `types`, numbers are int32."""
    target = importlib.import_module("triton.backends.compiler").GPUTarget(*CUDA)
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    return triton.compile(source, target=target, options={"num_warps": 1}).asm["ptx"]


@pytest.mark.skipif(
    tuple(int(n) for n in triton.__version__.split(".")[:2]) < (3, 3), reason="compiles for an absent GPU since 3.3"
)
@pytest.mark.parametrize(
    ("value", "location", "channels", "heads"),
    [("fp32", "fp32", 32, None), ("bf16", "fp32", 32, 1), ("fp16", "fp32", 5, None), ("fp16", "fp16", 32, None)],
)
def test_kernels_compile_for_cuda(value: str, location: str, channels: int, heads: int | None) -> None:
    """The kernels compile, which the interpreter does not prove: it accepts more. A 1 becomes a constant."""
    constants = {"D": channels, "K": 20, "P": 4, "BLOCK_K": 32, "BLOCK_D": triton.next_power_of_2(channels)}
    constants |= {} if heads is None else {"H": heads}
    types = {"levels": "*i32", "of_value": "*fp32"}
    types |= {name: f"*{value}" for name in ("value", "grad", "out")}
    types |= {name: f"*{location}" for name in ("locations", "weights", "of_locations", "of_weights")}
    assert "ld.global" in compile_for_cuda(kernels._forward_kernel, types, constants)
    atomics = {}
    for atomic in (True, False):
        code = compile_for_cuda(kernels._backward_kernel, types, {**constants, "ATOMIC": atomic})
        atomics[atomic] = set(re.findall(r"\b(?:atom|red)\.\S+", code))
    assert atomics[True] and all(x.endswith(".add.f32") for x in atomics[True]), "also for half-precision values"
    assert not atomics[False]


class NoCompiler:
    """A kernel on a machine without a C compiler."""

    def __getitem__(self, grid: tuple[int]) -> "NoCompiler":
        return self

    def __call__(self, *arguments: object, **constants: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")


def test_kernels_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """PyTorch computes instead, and one warning says why."""
    monkeypatch.setattr(kernels, "_forward_kernel", NoCompiler())
    monkeypatch.setattr(operators, "deformable_attention_triton", kernels)
    kernels.can_launch.cache_clear()
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cpu"))
    try:
        with caplog.at_level(logging.WARNING):
            assert [operators._implementation(on_gpu) for _ in range(2)] == [deformable_attention_torch] * 2
    finally:
        kernels.can_launch.cache_clear()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "RuntimeError: Failed to find C compiler." in message and "set CC" in message


def test_kernels_run_where_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64 is the exception, since they would compute it in float32."""
    monkeypatch.setattr(kernels, "can_launch", lambda device: True)
    monkeypatch.setattr(operators, "deformable_attention_triton", kernels)
    device = torch.device("cuda", 0)
    for dtype, chosen in [(torch.bfloat16, kernels), (torch.float64, deformable_attention_torch)]:
        assert operators._implementation(SimpleNamespace(is_cuda=True, dtype=dtype, device=device)) is chosen


def test_running_out_of_memory_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(kernels, "sample", sample)
    kernels.can_launch.cache_clear()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernels.can_launch(torch.device("cpu"))
