"""The step of the deformable detectors for a compiler and a device: one graph, no synchronisation, only operations with
a deterministic form, and two processes of which one has no object.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from align_detr.layers.positional import SinePositionEncoding
from align_detr.structures import Memory, Predictions, Targets
from support.detectors import DEFORMABLE, deformable_detector
from support.inputs import image_input
from support.processes import in_two_processes

ALL = pytest.mark.parametrize("kind", DEFORMABLE)
needs_operators = pytest.mark.skipif(
    not hasattr(torch.library, "custom_op"), reason="registered operators need PyTorch 2.4"
)


class BeyondNeck(nn.Module):
    """Encoder, proposals, queries, decoder and head, for one set of sizes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = deformable_detector(kind).eval()
        with torch.no_grad():
            self.memory = self.model.extract_features([torch.randn(3, 64, 64), torch.randn(3, 40, 33)])
        assert self.memory.padding is not None

    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the arguments of `forward`."""
        return self.memory.tokens, self.memory.position, self.memory.padding

    def forward(self, tokens: Tensor, position: Tensor, padding: Tensor) -> list[Tensor]:
        """Return logits and boxes of all sets."""
        memory = Memory(tokens, position, padding, self.memory.shapes, self.memory.valid_sizes)
        return flat(self.model.predict(self.model.encoder(memory)))


def flat(sets: dict[str, Predictions]) -> list[Tensor]:
    return [x for preds in sets.values() for x in (preds.logits, preds.boxes)]


@needs_operators
@pytest.mark.parametrize(("kind", "backend"), [("hybrid", "eager"), ("dab_two_stage", "aot_eager")])
def test_one_graph(kind: str, backend: str) -> None:
    """Forward and backward are one graph each; properties that are computed once do not break it."""
    network = BeyondNeck(kind)
    torch.compiler.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    expected, found = network(*network.arguments()), compiled(*network.arguments())
    parameters = [p for part in (network.model.encoder, network.model.decoder) for p in part.parameters()]
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, atol=1e-6, rtol=1e-6)
    gradients = [torch.autograd.grad(sum(x.sum() for x in outputs), parameters) for outputs in (found, expected)]
    for x, y in zip(*gradients, strict=True):
        assert_close(x, y, atol=1e-5 * max(1.0, y.abs().max().item()), rtol=1e-5)


@needs_operators
def test_export() -> None:
    network = BeyondNeck("two_stage")
    exported = torch.export.export(network, network.arguments())
    layers = len(network.model.encoder.layers) + len(network.model.decoder.layers)
    assert exported.graph_module.code.count("align_detr.deformable_attention") == layers
    for x, y in zip(exported.module()(*network.arguments()), network(*network.arguments()), strict=True):
        assert_close(x, y, atol=1e-6, rtol=1e-6)


@needs_operators
@ALL
def test_nothing_is_read_back_from_the_device(kind: str) -> None:
    """The step runs on the meta device, whose tensors have no values to read; one image has too few tokens."""
    model = deformable_detector(kind, num_queries=60).to("meta").train()
    labels, boxes = torch.zeros(2, 3, dtype=torch.int64, device="meta"), torch.zeros(2, 3, 4, device="meta")
    images = [torch.zeros(3, *size, device="meta") for size in ((40, 33), (16, 24))]
    memory = model.encoder(model.extract_features(images))
    outputs = flat(model.predict(memory, Targets(labels, boxes, [3, 0])))
    assert all(x.is_meta for x in outputs)
    sum(x.sum() for x in outputs).backward()


@ALL
def test_backward_waits_for_nothing(kind: str) -> None:
    """The backward pass reads no value, the losses' included, although some of PyTorch's formulas do."""
    model = deformable_detector(kind).train()
    total = sum(model([image_input(64, 96, 3), image_input(40, 33, 2)]).values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        total.backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::sigmoid_backward" in names and "aten::_local_scalar_dense" not in names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@ALL
def test_a_gpu_is_not_waited_for(kind: str) -> None:
    """A step from images to gradients does not synchronise once the kernels know the maps' sizes."""
    model = deformable_detector(kind, num_queries=60).cuda().train()
    images = [torch.randn(3, *size, device="cuda") for size in ((40, 33), (16, 24))]
    labels, boxes = torch.zeros(2, 3, dtype=torch.int64, device="cuda"), torch.full((2, 3, 4), 0.5, device="cuda")

    def step() -> None:
        memory = model.encoder(model.extract_features(images))
        sum(x.sum() for x in flat(model.predict(memory, Targets(labels, boxes, [3, 0])))).backward()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# What raises on CUDA under torch.use_deterministic_algorithms(True), of what a detector might use, by its first tensor.
WITHOUT_ORDER = {
    *(f"aten.cumsum.default {x}" for x in ("torch.float32", "torch.bfloat16", "torch.float16")),
    *(f"aten.{name}.default torch.float32" for name in ("histc", "kthvalue", "grid_sampler_2d_backward")),
    *(f"aten.{name}_backward.default torch.float32" for name in ("upsample_bilinear2d", "_adaptive_avg_pool2d")),
}


class Operations(TorchDispatchMode):
    """A record of the name and the first dtype of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        first = next((x for x in args if isinstance(x, Tensor)), None)
        self.found.add(f"{function} {None if first is None else first.dtype}")
        return function(*args, **(kwargs or {}))


@contextmanager
def operations() -> Iterator[set[str]]:
    with Operations() as mode:
        yield mode.found


@needs_operators
@ALL
def test_every_operation_has_a_deterministic_form(kind: str) -> None:
    """The step beyond the backbone has; position encodings sum integers, since CUDA's cumsum of floats has none."""
    model = deformable_detector(kind).train()
    features, padded = {"res3": (12, 8), "res4": (16, 4), "res5": (24, 2)}, (64, 64)
    features = {name: torch.randn(2, c, n, n) for name, (c, n) in features.items()}
    targets = Targets(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2, 4), 0.5), [2, 1])
    with operations() as found:
        memory = model.encoder(model.neck(features, [(64, 64), (40, 33)], padded))
        sum(model.criterion(model.predict(memory, targets), targets).values()).backward()
    assert any(x.startswith("align_detr.deformable_attention_backward") for x in found)
    assert not found & WITHOUT_ORDER


def test_positions_are_counted_in_whole_numbers() -> None:
    with operations() as found:
        SinePositionEncoding(num_features=4)(torch.zeros(1, 3, 5, dtype=torch.bool))
    assert {x for x in found if "cumsum" in x} == {"aten.cumsum.default torch.bool"}


def losses_and_gradient(rank: int) -> tuple[list[str], str]:
    """Return the names of the losses and the norm of a gradient after its exchange."""
    model = DistributedDataParallel(deformable_detector("hybrid", num_queries=60).train())
    torch.manual_seed(rank)
    for _ in range(2):  # a parameter without a gradient stops the second
        model.zero_grad()
        images = [image_input(16, 16, 0)] if rank else [image_input(64, 96, 3), image_input(70, 40, 2)]
        losses = model(images)
        sum(losses.values()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    weight = model.module.queries.source.projection.weight.grad
    return list(losses), format(float(weight.double().norm()), ".6e")


def test_a_process_without_objects_and_with_few_tokens(tmp_path: Path) -> None:
    first, second = in_two_processes(losses_and_gradient, tmp_path)
    assert first == second, "equal names of losses, equal gradients"
    assert first[0]
