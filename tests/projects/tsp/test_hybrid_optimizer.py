"""The optimizer of SGD and AdamW in one: resuming, schedules, loss scaling, groups."""

import copy
import io

import pytest
import torch
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.engine.hooks import group_rates
from align_detr.errors import ConfigError
from align_detr.projects.tsp.hybrid_optimizer import HybridOptimizer, get_hybrid_groups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Linear(3, 4)
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.encoder(self.conv(x)))


def build(model: nn.Module, lr: float = 0.1, transformer_lr: float = 0.01, clip: float = 0.01) -> HybridOptimizer:
    groups = get_hybrid_groups(model=model, lr=lr, transformer_lr=transformer_lr)
    return HybridOptimizer(params=groups, lr=lr, transformer_lr=transformer_lr, clip_max_norm=clip)


def step(model: nn.Module, optimizer: HybridOptimizer, seed: int) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def test_groups() -> None:
    optimizer = build(Model())
    found = {g["name"]: (g["optimizer"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups}
    assert found == {
        "base": ("sgd", 0.1, 1e-4, 2),
        "encoder": ("adamw", 0.01, 1e-4, 2),
        "encoder_norm": ("adamw", 0.01, 0.0, 2),
    }
    assert isinstance(optimizer, torch.optim.Optimizer) and group_rates(optimizer).keys() == found.keys()


def test_equal_rates_do_not_merge_the_two() -> None:
    optimizer = build(Model(), lr=0.01)
    assert sorted(g["optimizer"] for g in optimizer.param_groups) == ["adamw", "adamw", "sgd"]


def test_steps_are_those_of_torch() -> None:
    model, other = Model(), Model()
    optimizer = build(model)
    sgd = torch.optim.SGD(other.conv.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    adamw = torch.optim.AdamW(
        [
            {"params": other.encoder[0].parameters(), "weight_decay": 1e-4},
            {"params": other.encoder[1].parameters(), "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    for seed in range(4):
        step(model, optimizer, seed)
        sgd.zero_grad()
        adamw.zero_grad()
        other(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        nn.utils.clip_grad_norm_(other.encoder.parameters(), 0.01)
        sgd.step()
        adamw.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert_close(a, b)


def test_only_the_transformer_is_clipped() -> None:
    model = Model()
    optimizer = build(model)
    model(torch.ones(2, 3)).square().sum().backward()
    before = model.conv.weight.grad.clone()
    optimizer.step()
    norm = torch.cat([p.grad.flatten() for p in model.encoder.parameters()]).norm()
    assert_close(norm, torch.tensor(0.01), rtol=1e-4, atol=0)
    assert torch.equal(model.conv.weight.grad, before)
    unclipped = Model()
    optimizer = build(unclipped, clip=0.0)
    unclipped(torch.ones(2, 3)).square().sum().backward()
    norm = torch.cat([p.grad.flatten() for p in unclipped.encoder.parameters()]).norm()
    optimizer.step()
    assert norm > 0.01 and torch.cat([p.grad.flatten() for p in unclipped.encoder.parameters()]).norm() == norm


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    model = Model()
    optimizer = build(model)
    for seed in range(3):
        step(model, optimizer, seed)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = Model()
    restored = build(resumed)
    resumed.load_state_dict(state["model"])
    restored.load_state_dict(state["optimizer"])
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(resumed, restored, seed)
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(optimizer.state) == 6 and optimizer.state.keys() == {p for p in model.parameters() if p.requires_grad}


def test_a_copy_is_an_optimizer_of_its_own() -> None:
    model = Model()
    optimizer = build(model)
    step(model, optimizer, 0)
    other_model, other = copy.deepcopy((model, optimizer))
    step(model, optimizer, 1)
    before = [p.detach().clone() for p in model.parameters()]
    step(other_model, other, 1)
    for a, b, c in zip(model.parameters(), other_model.parameters(), before, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_groups_that_do_not_fit_are_refused() -> None:
    optimizer = build(Model())
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"].pop()
    with pytest.raises(ValueError, match="group"):
        optimizer.load_state_dict(state)


def test_a_schedule_moves_both_rates_also_after_resuming() -> None:
    optimizer = build(Model())
    optimizer.load_state_dict(optimizer.state_dict())
    multiplier = WarmupParamScheduler(
        MultiStepParamScheduler([1.0, 0.1], milestones=[8], num_updates=10), 0.5, 0.2, "linear"
    )
    schedule = LRMultiplier(optimizer, multiplier, max_iter=10)
    rates = []
    for _ in range(10):
        rates.append([g["lr"] for g in (optimizer.sgd.param_groups[0], optimizer.adamw.param_groups[0])])
        optimizer.step()
        schedule.step()
    expected = [0.5, 0.75, *[1.0] * 6, 0.1, 0.1]
    assert_close(torch.tensor(rates), torch.tensor([[0.1 * x, 0.01 * x] for x in expected]))


def test_loss_scaling_unscales_before_clipping_and_skips_infinite_gradients() -> None:
    plain, scaled = Model(), Model()
    step(plain, build(plain), 0)
    optimizer, scaler = build(scaled), torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    scaler.scale(scaled(x).square().sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert_close(a, b)
    before = [p.detach().clone() for p in scaled.parameters()]
    optimizer.zero_grad()
    scaler.scale(scaled(x).sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, q) for p, q in zip(scaled.parameters(), before, strict=True))
    assert scaler.get_scale() == 512


def test_a_closure_is_called_with_gradients() -> None:
    model = Model()
    optimizer = build(model)

    def closure() -> Tensor:
        loss = model(torch.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad


def test_added_groups_are_trained() -> None:
    model = Model()
    optimizer = build(model)
    late = nn.Parameter(torch.ones(2))
    options = {k: v for k, v in optimizer.sgd.param_groups[0].items() if k not in ("params", "name")}
    optimizer.add_param_group({**options, "params": [late]})
    late.grad = torch.ones(2)
    optimizer.step()
    assert_close(late.detach(), torch.full((2,), 1 - 0.1 * (1 + 1e-4)))
    with pytest.raises(ConfigError, match="has no optimizer: set its key"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ConfigError, match="transformer names decoder, which gives sgd all parameters"):
        get_hybrid_groups(model=Model(), lr=0.1, transformer_lr=0.01, transformer=["decoder"])
    with pytest.raises(ConfigError, match="needs the model"):
        get_hybrid_groups(lr=0.1, transformer_lr=0.01)
    with pytest.raises(ConfigError, match="no group of optimizer 'adamw'"):
        HybridOptimizer(params=[{"params": [nn.Parameter(torch.ones(1))], "optimizer": "sgd", "lr": 0.1}])
