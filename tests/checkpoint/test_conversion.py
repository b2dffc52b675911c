"""Published weights load through the checkpointer, from the file formats they come in."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import convert_official_detr
from align_detr.errors import ConfigError
from align_detr.modeling.backbone import MobileNetV2, build_resnet
from support.detectors import tiny_detr
from support.official import official_names, small_detr


def test_an_official_file_loads(tmp_path: Path) -> None:
    """The official release has its weights under "model", and the arguments as a Namespace."""
    source, model = small_detr(), small_detr()
    for p in model.parameters():
        nn.init.zeros_(p)
    file = tmp_path / "detr.pth"
    torch.save({"model": official_names(source), "args": Namespace(lr=1e-4)}, file)
    Checkpointer(model).load(str(file))
    expected = source.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_key_that_is_not_detrs_is_named() -> None:
    state = {**official_names(small_detr()), "mask_head.lay1.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match="'mask_head.lay1.weight' is not one of DETR's"):
        convert_official_detr(state, num_classes=3)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_torchvision_backbones_load(tmp_path: Path, suffix: str) -> None:
    """Both kinds of backbone load from a torch file and from plain numpy arrays (half precision included)."""
    for reference, backbone in [
        (torchvision.models.resnet18(weights=None), build_resnet(depth=18)),
        (torchvision.models.mobilenet_v2(weights=None), MobileNetV2()),
    ]:
        model = nn.ModuleDict({"backbone": backbone})
        state = {key: value.half() if value.dim() == 4 else value for key, value in reference.state_dict().items()}
        file = tmp_path / f"backbone{suffix}"
        if suffix == ".pth":
            torch.save(state, file)
        else:
            np.savez(file, **{key: value.numpy() for key, value in state.items()})
        checkpointer = Checkpointer(model)
        checkpointer.load(str(file))
        converted = convert(state, num_classes=None)
        for key, value in model.state_dict().items():
            assert torch.equal(value, converted[key].float()), key


def test_other_weights_are_left_alone() -> None:
    state = tiny_detr().state_dict()
    assert convert(state, num_classes=3) is state
