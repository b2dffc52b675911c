"""The class loss of a config, found by its name."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from align_detr import model_zoo
from align_detr.errors import ConfigError
from align_detr.modeling import (
    GIoULoss,
    IABCELoss,
    L1Loss,
    SetLoss,
    SigmoidFocalLoss,
    VariFocalLoss,
    align,
    class_loss_of,
    set_class_loss,
)


def criterion(*losses: DictConfig) -> DictConfig:
    return OmegaConf.create({"losses": list(losses)}, flags={"allow_objects": True})


def test_the_class_loss_is_found_wherever_it_stands() -> None:
    """By the name that its class gives it, or its own."""
    cfg = criterion(L(L1Loss)(), L(SigmoidFocalLoss)(weight=3.0), L(GIoULoss)())
    assert class_loss_of(cfg).weight == 3.0
    set_class_loss(cfg, L(VariFocalLoss)(weight=2.0))
    assert cfg.losses[1]["_target_"] is VariFocalLoss and cfg.losses[0]["_target_"] is L1Loss
    renamed = criterion(L(L1Loss)(name="class", weight=7.0), L(SigmoidFocalLoss)(name="focal"))
    assert class_loss_of(renamed).weight == 7.0


class Mine(SetLoss):
    """A loss whose name cannot be set."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__(name="mine", weight=weight)


class MyClassLoss(SigmoidFocalLoss):
    """A class loss whose name is not in its signature."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)


class Required(SetLoss):
    """A loss whose name must be set."""

    def __init__(self, *, name: str, weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)


class Plain(torch.nn.Module):
    """A loss with its name in the class."""

    name, weight = "plain", 1.0


def test_the_class_loss_is_found_among_losses_of_any_constructor() -> None:
    others = [L(Mine)(), L(Required)(), L(Required)(name="other"), L(Plain)()]
    for class_loss in (
        L(SigmoidFocalLoss)(weight=3.0),
        L(MyClassLoss)(weight=3.0),
        L(Required)(name="class", weight=3),
    ):
        cfg = criterion(*others, class_loss)
        assert class_loss_of(cfg).weight == 3
        set_class_loss(cfg, L(VariFocalLoss)(weight=2.0))
        assert cfg.losses[4]["_target_"] is VariFocalLoss
    model = model_zoo.get_config("dino/dino_r50_4scale_12ep.py").model
    model.criterion.losses = [*others, *model.criterion.losses]
    align(model)
    assert model.criterion.losses[4]["_target_"] is IABCELoss


@pytest.mark.parametrize(
    ("losses", "names"),
    [
        ([L(L1Loss)()], "bbox"),
        ([L(SigmoidFocalLoss)(), L(L1Loss)(), L(IABCELoss)()], "class, bbox, class"),
        ([L(SigmoidFocalLoss)(name="obj"), L(GIoULoss)()], "obj, giou"),
        ([L(Mine)(), L(Required)(), L(Plain)()], "mine, (no name), plain"),
    ],
)
def test_a_criterion_without_one_class_loss(losses: list[DictConfig], names: str) -> None:
    for ask in (class_loss_of, lambda cfg: set_class_loss(cfg, L(IABCELoss)())):
        with pytest.raises(
            ConfigError, match=rf"criterion.losses are {re.escape(names)}, but exactly one must be 'class'"
        ):
            ask(criterion(*losses))


def test_align_changes_a_saved_config(tmp_path: Path) -> None:
    """Whose classes are names, and whose class loss stands last: the weights stay where they were."""
    LazyConfig.save(model_zoo.get_config("dino/dino_r50_4scale_12ep.py"), str(tmp_path / "config.yaml"))
    model = LazyConfig.load(str(tmp_path / "config.yaml")).model
    model.criterion.losses = [*model.criterion.losses[1:], model.criterion.losses[0]]
    class_loss_of(model.criterion).weight = 1.5
    align(model, copies=2)
    assert model.criterion.losses[2]["_target_"] is IABCELoss and model.criterion.losses[2].weight == 1.5
    assert [loss.weight for loss in model.criterion.losses[:2]] == [5, 2]
    assert model.criterion.matcher.copies == {"main": [2] * 5 + [1], "enc": 2}
