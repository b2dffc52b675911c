"""Parts of a model that do not train: `train.freeze`."""

import logging
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from align_detr.engine.freezing import FixedNorms, freeze
from align_detr.engine.optimizer import get_param_groups
from align_detr.errors import ConfigError
from align_detr.modeling import MobileNetV2, build_small_resnet


class Model(nn.Module):
    """A backbone with batch norms, and a head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 3)


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "begins"),
    [
        ("backbone", ["backbone."]),
        (["backbone.stem", "res2"], ["backbone.stem.", "backbone.res2."]),
        (["backbone.res[23]"], ["backbone.res2.", "backbone.res3."]),
        (["*.bias"], ["head.bias"]),
    ],
)
def test_names_and_patterns(patterns: str | list[str], begins: list[str]) -> None:
    """By a name's parts in a row or by wildcards; what is frozen is in no group of the optimizer."""
    model = Model(build_small_resnet(channels=(4, 5, 6, 7), blocks=(1, 1, 1, 1)))
    names = trainable(model)
    norms = freeze(model, patterns)
    frozen = {name for name in names if name.startswith(tuple(begins)) or (begins == ["head.bias"] and "bias" in name)}
    assert frozen and trainable(model) == names - frozen
    grouped = [p for group in get_param_groups(model=model, base_lr=1.0) for p in group["params"]]
    assert len(grouped) == len(names - frozen)
    assert bool(norms) == (patterns != ["*.bias"])  # a batch norm with a weight that trains is not fixed


def test_stages_of_any_backbone(caplog: pytest.LogCaptureFixture) -> None:
    """MobileNetV2 calls its modules `features.0` and so on, and says which make up res2. The log has the number."""
    model = Model(MobileNetV2(out_features=["res5"]))
    with caplog.at_level(logging.INFO):
        assert freeze(model, ["backbone.stem", "backbone.res2"]) == []  # its norms have no parameters
    left = {int(name.split(".")[2]) for name in trainable(model) if name.startswith("backbone")}
    assert left == set(range(4, 18))
    number = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert f"{number / 1e6:.3f} M parameters in 9 tensors" in caplog.text


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_to_freeze(nothing: list[str] | None) -> None:
    model = Model(nn.Identity())
    assert freeze(model, nothing) == [] and trainable(model) == {"head.weight", "head.bias"}


def test_frozen_batch_norms_stay_fixed() -> None:
    model = Model(build_small_resnet(channels=(4, 5, 6, 7), blocks=(1, 1, 1, 1)))
    norms = freeze(model, "backbone.stem")
    hook = FixedNorms(norms=norms)
    model.train()
    hook.before_step()
    before = {name: b.clone() for name, b in model.named_buffers()}
    model.backbone(torch.randn(2, 3, 64, 64))
    changed = {name.split(".")[1] for name, b in model.named_buffers() if not torch.equal(b, before[name])}
    assert len(norms) == 2 and changed == {"res2", "res3", "res4", "res5"}


@pytest.mark.parametrize(
    ("pattern", "remedy"), [("backbone.stme", "write 'backbone.stem'"), ("encoder", "parts are backbone, head")]
)
def test_a_pattern_that_fits_nothing(pattern: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"'{pattern}', which fits no parameter: .*{remedy}"):
        freeze(Model(build_small_resnet()), [pattern])


@pytest.mark.parametrize("value", [3, {"backbone": 1}, True])
def test_a_setting_that_is_no_list(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"train.freeze=.* must be a list of names: set it to \[backbone\]"):
        freeze(nn.Linear(1, 1), OmegaConf.create({"value": value}).value)
