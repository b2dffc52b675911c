"""Backbones against torchvision with the same weights."""

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.testing import assert_close

from align_detr.checkpoint.key_map import rename, torchvision_resnet_rules
from align_detr.modeling.backbone import MobileNetV2, build_resnet, build_small_resnet


def randomize_norms(module: nn.Module) -> None:
    """Draw batch-norm statistics as different from their initial values as training makes them."""
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor, low, high in [
                (m.weight, 0.5, 1.0),
                (m.bias, -0.2, 0.2),
                (m.running_mean, -0.2, 0.2),
                (m.running_var, 0.5, 1.5),
            ]:
                nn.init.uniform_(tensor, low, high)


@pytest.mark.parametrize(("depth", "dilation"), [(18, 1), (50, 1), (50, 2)])
def test_resnet_equals_torchvision(depth: int, dilation: int) -> None:
    options = {"replace_stride_with_dilation": [False, False, True]} if dilation == 2 else {}
    reference = getattr(torchvision.models, f"resnet{depth}")(weights=None, **options).eval()
    randomize_norms(reference)
    ours = build_resnet(depth=depth, res5_dilation=dilation, out_features=["res3", "res5"]).eval()
    converted = rename(reference.state_dict(), torchvision_resnet_rules(""), "torchvision ResNet")
    ours.load_state_dict({key.removeprefix("backbone."): value for key, value in converted.items()}, strict=True)
    image = torch.randn(1, 3, 70, 97)
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
        res3 = reference.layer2(reference.layer1(x))
        res5 = reference.layer4(reference.layer3(res3))
        outputs = ours(image)
    for name, expected in [("res3", res3), ("res5", res5)]:
        assert_close(outputs[name], expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert ours.output_shape()["res5"].stride == 32 // dilation


def test_frozen_stages() -> None:
    trainable = {name for name, p in build_resnet(depth=50, freeze_at=2).named_parameters() if p.requires_grad}
    assert trainable and all(name.startswith(("res3", "res4", "res5")) for name in trainable)


def test_mobilenet_equals_torchvision() -> None:
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    randomize_norms(reference)
    ours = MobileNetV2(out_features=["res2", "res3", "res4", "res5"]).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    ours.load_state_dict({k: v for k, v in reference.state_dict().items() if k in ours.state_dict()}, strict=True)
    x = image = torch.randn(1, 3, 64, 96)
    expected = []
    with torch.no_grad():
        for block in reference.features:
            x = block(x)
            expected.append(x)
        outputs = ours(image)
    for index, name in [(3, "res2"), (6, "res3"), (13, "res4"), (17, "res5")]:
        assert_close(outputs[name], expected[index], rtol=1e-4, atol=1e-5)
        spec = ours.output_shape()[name]
        assert outputs[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
        assert outputs[name].is_contiguous(memory_format=torch.channels_last)
    assert isinstance(ours.features[0][1], FrozenBatchNorm2d)


@pytest.mark.parametrize(("freeze_at", "modules"), [(0, 0), (1, 2), (2, 4), (5, 18)])
def test_frozen_stages_of_mobilenet(freeze_at: int, modules: int) -> None:
    """1 is the stem (two modules), 2 ends with res2, which is module 3; every module behind trains."""
    model = MobileNetV2(out_features=["res2", "res5"], freeze_at=freeze_at)
    frozen = [not any(p.requires_grad for p in block.parameters()) for block in model.features]
    assert frozen == [index < modules for index in range(18)]
    assert model(torch.randn(1, 3, 32, 32))["res2"].requires_grad == (freeze_at < 2)


def test_small_resnet_strides() -> None:
    outputs = build_small_resnet(out_features=["res3", "res4", "res5"])(torch.randn(1, 3, 128, 128))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "res3": (1, 64, 16, 16),
        "res4": (1, 128, 8, 8),
        "res5": (1, 192, 4, 4),
    }


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="no ResNet of depth 51"):
        build_resnet(depth=51)
    with pytest.raises(ValueError, match="ResNet-18 has no dilated form"):
        build_resnet(depth=18, res5_dilation=2)
    with pytest.raises(ValueError, match="no output 'res6'"):
        MobileNetV2(out_features=["res6"])
    with pytest.raises(ValueError, match="freeze_at is 6, but MobileNetV2 has stages 1 to 5"):
        MobileNetV2(freeze_at=6)
    with pytest.raises(ValueError, match="equal channels"):
        build_small_resnet(channels=(8, 8, 16, 16))
