"""Random batches in every registered detector: a short version of benchmarks/random_batches.py."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from align_detr import model_zoo
from align_detr.modeling.losses.boxes import GIoULoss
from support.paths import PROJECT
from support.shrink import config, small_model


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    module = importlib.import_module("random_batches")
    monkeypatch.setattr(module, "SIDES", (32, 128))  # large images take nearly all the time
    yield module
    sys.modules.pop("random_batches", None)


def one_per_architecture(script: ModuleType) -> dict[str, DictConfig]:
    """Return the small model of the first config of each registered meta-architecture."""
    nodes: dict[str, tuple[str, DictConfig]] = {}
    for name in model_zoo.names():
        kind = config(name).model["_target_"]
        key = (locate(kind) if isinstance(kind, str) else kind).__name__
        if key not in nodes:
            nodes[key] = name, small_model(name)
    return dict(nodes.values())


def test_four_batches_in_each_architecture_are_finite(script: ModuleType) -> None:
    """Plain and extreme, in float32 and bfloat16."""
    nodes = one_per_architecture(script)
    assert len(nodes) == len(script.registered()) >= 16
    assert script.run(nodes, 0, 4 * len(nodes)) == []


def test_batches_are_those_of_their_seeds_and_hold_what_they_should(script: ModuleType) -> None:
    batches = [script.draw_batch(seed, 3, 0.0) for seed in range(30)]
    again = script.draw_batch(7, 3, 0.0)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(again, batches[7], strict=True))
    counts = {len(image["instances"]) for batch in batches for image in batch}
    assert {0, 1, 300} <= counts
    boxes = torch.cat([image["instances"].gt_boxes.tensor for batch in batches for image in batch])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert bool((sides == 0).all(1).any()) and bool((sides >= 0).all())
    with_sides = [image["instances"].gt_boxes.tensor for image in script.draw_batch(3, 3, 1.0)]
    assert all(bool((x[:, 2:] - x[:, :2] >= 0.999).all()) for x in with_sides)


def test_a_loss_that_is_not_finite_is_a_fault_with_its_seed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = GIoULoss.forward
    monkeypatch.setattr(GIoULoss, "forward", lambda *arguments: forward(*arguments) / 0)
    monkeypatch.setattr(script, "registered", lambda: {"DETR"})
    name = "detr/detr_r50_500ep.py"
    faults = script.run({name: small_model(name)}, 5, 2)
    assert [(row["seed"], row["config"]) for row in faults] == [(5, name), (6, name)]
    assert "loss_giou" in faults[0]["fault"] and f"seed 5: {name}" in capsys.readouterr().out
