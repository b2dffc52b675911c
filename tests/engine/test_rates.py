"""Learning rates: scaling with the batch, and the warm-up."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

from align_detr import model_zoo
from align_detr.engine import FlatCosine
from align_detr.engine.rates import build_schedule, scale_rates
from align_detr.engine.run_length import DataSize, RunLength
from align_detr.errors import ConfigError

LENGTH = RunLength(DataSize(["x"], 20), 2, 10, 100)  # ten epochs of ten iterations


@pytest.mark.parametrize(
    ("rule", "base", "factor", "line"),
    [
        ("none", 16, 1.0, "not scaled: train.lr_scaling=none, though the batch is 64 and the config's 16"),
        ("none", None, 1.0, "not scaled: the batch is that of the config"),
        ("linear", 16, 4.0, "scaled by 4: train.lr_scaling=linear, batch 64 over 16"),
        ("sqrt", 16, 2.0, "scaled by 2: train.lr_scaling=sqrt, batch 64 over 16"),
        ("linear", 256, 0.25, "scaled by 0.25: train.lr_scaling=linear, batch 64 over 256"),
    ],
)
def test_rates_are_scaled_by_the_rule_that_is_said(rule: str, base: int | None, factor: float, line: str) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1e-4, 1e-5)]
    optimizer = torch.optim.SGD(groups)
    assert scale_rates(optimizer, OmegaConf.create({"lr_scaling": rule, "base_batch_size": base}), 64) == line
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4 * factor, 1e-5 * factor])


def test_unknown_rule() -> None:
    with pytest.raises(ConfigError, match="train.lr_scaling=square is unknown: use one of none, linear, sqrt"):
        scale_rates(None, OmegaConf.create({"lr_scaling": "square", "base_batch_size": 1}), 1)


def drops(**warm: object):
    node = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[9], num_updates=10)
    return L(WarmupParamScheduler)(scheduler=node, warmup_factor=0.5, warmup_length=0.4) if warm.get("warm") else node


@pytest.mark.parametrize("warm", [False, True])
def test_warm_up_in_epochs(warm: bool) -> None:
    """Two of ten epochs rise from a thousandth to the whole rate; a warm-up that the config has is replaced."""
    schedule = build_schedule(drops(warm=warm), 2, LENGTH)
    assert [schedule(t) for t in (0.0, 0.1, 0.2, 0.5, 0.95)] == pytest.approx([0.001, 0.5005, 1.0, 1.0, 0.1])
    assert build_schedule(drops(warm=warm), 0, LENGTH)(0.0) == 1.0
    assert build_schedule(drops(warm=warm), None, LENGTH)(0.0) == (0.5 if warm else 1.0)


@pytest.mark.parametrize("epochs", [-1, 10])
def test_a_warm_up_that_does_not_fit(epochs: float) -> None:
    with pytest.raises(ConfigError, match=f"train.warmup_epochs={epochs} does not fit into a run of 10 epochs"):
        build_schedule(drops(), epochs, LENGTH)


def test_flat_cosine_by_hand() -> None:
    """12 epochs: warm-up in the first, flat to 6, half a cosine to 0.2 at 10, constant to 12 inclusive."""
    make = LazyConfig.load(str(model_zoo.config_path("common/schedule.py")), "flat_cosine_with_warmup")
    schedule = instantiate(make(12, warmup_epochs=1, flat_until=6, constant_from=10, final=0.2))
    epochs = (0, 0.5, 1, 3, 6, 7, 8, 10, 11, 12)
    expected = [0.001, 0.5005, 1, 1, 1, 0.6 + 0.4 * 0.5**0.5, 0.6, 0.2, 0.2, 0.2]
    assert [schedule(epoch / 12) for epoch in epochs] == pytest.approx(expected)


def test_flat_cosine_without_a_cosine() -> None:
    with pytest.raises(ConfigError, match=r"flat_until is 0\.5 and constant_from is 0\.5, which leave no time"):
        FlatCosine(flat_until=0.5, constant_from=0.5, final=0.1)
