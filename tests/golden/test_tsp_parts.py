"""What TSP-FCOS and TSP-RCNN share, against the numbers of the official code: the neck, the optimizer, the names and
sizes of all weights, and each weight's place in the optimizer.
"""

import json

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from torch import Tensor, nn

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.key_map import rename
from align_detr.projects.tsp.backbone import ExtraLevels
from align_detr.projects.tsp.checkpoint import backbone_rules, convert_official_tsp_fcos
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.hybrid_optimizer import HybridOptimizer
from support.golden import Fixture, fixtures
from support.paths import GOLDEN, PROJECT
from support.tsp_fcos import close


class GivenMaps(Backbone):
    """A backbone that returns its input, which is a dictionary of maps."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.shapes = {f"res{i}": ShapeSpec(channels=c, stride=2**i) for i, c in enumerate(channels, start=2)}

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return x

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self.shapes


@fixtures("tsp/neck_*")
def test_neck(fixture: Fixture) -> None:
    size = fixture.meta["config"]
    neck = FPN(
        GivenMaps(size["bottom_channels"]),
        size["in_features"],
        size["channels"],
        top_block=ExtraLevels(channels=size["channels"], norm="BN"),
    )
    weights = rename(fixture.weights, backbone_rules(), "TSP")
    neck.load_state_dict({key.removeprefix("backbone."): value for key, value in weights.items()})
    with torch.no_grad():
        found = neck.eval()(fixture.input)
    assert found.keys() == fixture.output.keys()
    for name, expected in fixture.output.items():
        close(found[name], expected, name)


@fixtures("tsp/hybrid_optimizer*")
def test_hybrid_optimizer(fixture: Fixture) -> None:
    meta = fixture.meta["config"]
    parameters = {name: nn.Parameter(fixture.weights[name].clone()) for name in meta["names"]}
    groups = [
        {"params": [p], "lr": g["lr"], "weight_decay": g["weight_decay"], "optimizer": g["optimizer"].lower()}
        for p, g in zip(parameters.values(), meta["groups"], strict=True)
    ]
    optimizer = HybridOptimizer(params=groups, momentum=meta["momentum"], clip_max_norm=meta["clip"])
    for t in range(meta["steps"]):
        for name, p in parameters.items():
            p.grad = fixture.input[f"grad_step{t}/{name}"].clone()
        of_transformer = [p.grad for p, g in zip(parameters.values(), groups, strict=True) if g["optimizer"] == "adamw"]
        norm = torch.cat([x.flatten() for x in of_transformer]).norm()
        close(norm, fixture.output[f"transformer_grad_norm_step{t}"])
        optimizer.step()
        clipped = torch.cat([x.flatten() for x in of_transformer]).norm()
        assert clipped <= meta["clip"] * (1 + 1e-5)
        for name, p in parameters.items():
            close(p, fixture.output[f"step{t}/{name}"], f"step {t} {name}")


def manifest(name: str) -> dict:
    path = GOLDEN / "manifests" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no manifest {path} (set ALIGN_DETR_GOLDEN)")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> TSPFCOS:
    cfg = LazyConfig.load(str(PROJECT / "projects/TSP/configs/tsp_fcos_r50_36ep.py"))
    return instantiate(cfg.model)


def renamed(names: list[str]) -> dict[str, str]:
    """Return official names and their names here, without the pixel statistics."""
    kept = [name for name in names if not name.startswith("pixel_")]
    return {name: next(iter(convert_official_tsp_fcos({name: torch.empty(0)}))) for name in kept}


def test_weights_of_tsp_fcos(model: TSPFCOS) -> None:
    official = manifest("tsp_fcos_r50")
    names = renamed(list(official["shapes"]))
    state = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert {names[name]: shape for name, shape in official["shapes"].items() if name in names} == state
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == official["parameters_total"]
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == official["parameters_trainable"]
    frozen = {name for name, p in parameters.items() if not p.requires_grad}
    assert frozen == {names[name] for name in official["frozen_parameter_keys"]}
    encoder = official["parameters_by_module"]["transformer_encoder"]
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder


@pytest.mark.parametrize("name, ours", [("fcos", "encoding.level_embed"), ("rcnn", "roi_heads.stages.0")])
def test_official_weights_are_recognised(name: str, ours: str) -> None:
    """The reader of checkpoints recognises the names, in the form that both detectors have."""
    official = manifest(f"tsp_{name}_r50")["shapes"]
    state = {key: torch.empty(0) for key in official}
    converted = convert(state, num_classes=80)
    assert any(key.startswith(ours) for key in converted) and not any("cls_tower" in key for key in converted)
    constants = [key for key in official if key.startswith("pixel_") or "anchor_generator" in key]
    assert len(converted) == len(official) - len(constants)


def test_optimizer_of_tsp_fcos(model: TSPFCOS) -> None:
    official = manifest("tsp_fcos_r50_param_groups")
    cfg = LazyConfig.load(str(PROJECT / "projects/TSP/configs/tsp_fcos_r50_36ep.py"))
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    names = {p: name for name, p in model.named_parameters()}
    found = {
        names[p]: (g["optimizer"].upper(), g["lr"], g["weight_decay"])
        for g in optimizer.param_groups
        for p in g["params"]
    }
    expected = renamed(list(official["groups"]))
    assert found == {
        expected[name]: (g["optimizer"], pytest.approx(g["lr"]), g["weight_decay"])
        for name, g in official["groups"].items()
    }
    clipped = {names[p] for g in optimizer.adamw.param_groups for p in g["params"]}
    assert clipped == {expected[name] for name, g in official["groups"].items() if g["clipped"]}
    for g in optimizer.sgd.param_groups:
        assert (g["momentum"], g["dampening"], g["nesterov"]) == (official["sgd_momentum"], 0, False)
    for g in optimizer.adamw.param_groups:
        assert list(g["betas"]) == official["adamw_betas"] and g["eps"] == official["adamw_eps"]
    assert optimizer.clip_max_norm == official["clip_max_norm"]
    assert cfg.train.clip_grad.max_norm == 0, "the optimizer clips, and the encoder alone"
