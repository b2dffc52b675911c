"""Parameter groups, AdamW and the learning rate schedules."""

import logging

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr import model_zoo
from align_detr.engine.optimizer import adamw, get_param_groups
from align_detr.errors import ConfigError


class Nested(nn.Module):
    """A model with a backbone, a norm, a shared head and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone_projection = nn.Linear(4, 4)
        self.attention = nn.ModuleDict({"sampling_offsets": nn.Linear(4, 2)})
        self.head = nn.Linear(4, 2)
        self.heads = nn.ModuleList([self.head, self.head])
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def group_of(groups, parameter):
    return [g["name"] for g in groups for p in g["params"] if p is parameter]


def test_every_trainable_parameter_is_in_one_group():
    model = Nested()
    groups = get_param_groups(model=model, base_lr=1.0, lr_factors={"backbone": 0.1})
    given = [id(p) for g in groups for p in g["params"]]
    assert sorted(given) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [("backbone", 0.1, 1e-4), ("base", 1.0, 1e-4)]


def test_factors_go_by_whole_parts_of_names_and_the_longest():
    model = Nested()
    factors = {"backbone": 0.1, "backbone.1": 0.5, "sampling_offsets": 0.25}
    groups = get_param_groups(model=model, base_lr=2.0, lr_factors=factors)
    assert group_of(groups, model.backbone[0].weight) == ["backbone"]
    assert group_of(groups, model.backbone[1].weight) == ["backbone.1"]
    assert group_of(groups, model.backbone_projection.weight) == ["base"]
    assert group_of(groups, model.attention["sampling_offsets"].bias) == ["sampling_offsets"]
    rates = {"backbone": 0.2, "backbone.1": 1.0, "sampling_offsets": 0.5, "base": 2.0}
    assert {g["name"]: g["lr"] for g in groups} == rates


def test_equal_rates_share_a_group_with_both_names():
    groups = get_param_groups(model=Nested(), base_lr=1.0, lr_factors={"backbone": 0.1, "sampling_offsets": 0.1})
    assert [g["name"] for g in groups] == ["backbone+sampling_offsets", "base"]


def test_weight_decay_of_norms_and_biases():
    model = Nested()
    groups = get_param_groups(
        model=model, base_lr=1.0, lr_factors={}, weight_decay=0.1, weight_decay_norm=0.0, weight_decay_bias=0.01
    )
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert decay[id(model.backbone[1].bias)] == 0.0 and decay[id(model.backbone[1].weight)] == 0.0
    assert decay[id(model.head.bias)] == 0.01 and decay[id(model.head.weight)] == 0.1
    assert sorted(g["name"] for g in groups) == ["base", "base_bias", "base_norm"]


def test_a_factor_without_effect_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        get_param_groups(model=Nested(), base_lr=1.0, lr_factors={"bakcbone": 0.1})
    assert "'bakcbone'" in caplog.text


@pytest.mark.parametrize("model", [None, nn.Linear(1, 1).requires_grad_(False)])
def test_nothing_to_optimise(model):
    with pytest.raises(ConfigError):
        get_param_groups(model=model, base_lr=1.0)


def test_config_builds_adamw_with_detrs_rates_and_plain_state():
    cfg = model_zoo.get_config("common/optim.py").AdamW
    model = Nested()
    cfg.params.model = model
    cfg.lr = 2e-4  # the groups follow
    optimizer = instantiate(cfg)
    rates = {g["name"]: (g["lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups}
    assert rates["base"] == (2e-4, 1e-4, (0.9, 0.999))
    assert rates["backbone"][0] == pytest.approx(2e-5)
    assert all(type(g["betas"]) is tuple for g in optimizer.param_groups)


def test_fused_adamw_is_adamw():
    weights = torch.linspace(-1, 1, 12).reshape(3, 4)
    results = []
    for fused in (None, False):
        parameter = nn.Parameter(weights.clone())
        optimizer = adamw(params=[{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}], fused=fused)
        for step in range(3):
            parameter.grad = torch.sin(weights + step)
            optimizer.step()
        results.append(parameter.detach())
    assert optimizer.param_groups[0]["fused"] is False
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)


DROPS = {500: 400, 300: 200, 150: 100, 50: 40, 36: 30, 24: 20, 12: 11}  # epochs: epoch of the drop


@pytest.mark.parametrize(("epochs", "drop"), DROPS.items())
def test_step_schedules_drop_after_their_epoch(epochs, drop):
    schedule = instantiate(model_zoo.get_config("common/schedule.py")[f"step_{epochs}ep"])
    per_epoch = 100
    rates = [schedule(i / (epochs * per_epoch)) for i in range(epochs * per_epoch)]
    last_before = max(i for i, rate in enumerate(rates) if rate == 1.0)
    assert abs(last_before - drop * per_epoch) <= 1  # fvcore rounds the milestone itself down
    assert rates[-1] == pytest.approx(0.1)


def test_cosine_with_warmup():
    from detectron2.config import LazyConfig

    make = LazyConfig.load(str(model_zoo.config_path("common/schedule.py")), "cosine_with_warmup")
    schedule = instantiate(make(10, 1, final=0.1))
    assert schedule(0.0) == pytest.approx(0.001)
    at_end_of_warmup = 0.1 + 0.9 * 0.5 * (1 + torch.cos(torch.tensor(0.1 * torch.pi)).item())
    assert schedule(0.05) == pytest.approx((0.001 + at_end_of_warmup) / 2, rel=1e-4)
    assert schedule(0.5) == pytest.approx(0.55)
    assert schedule(1.0) == pytest.approx(0.1)
