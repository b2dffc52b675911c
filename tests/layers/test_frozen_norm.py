"""Convolutions with a frozen batch norm in their weights."""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d

from align_detr.layers.frozen_norm import FoldedConv2d, fold_frozen_norms
from align_detr.modeling import build_resnet


def _conv(bias: bool) -> Conv2d:
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, bias=bias, norm=FrozenBatchNorm2d(4), activation=torch.relu).double()
    for name, buffer in conv.norm.named_buffers():
        buffer.copy_(torch.rand(4) + 0.5 if name != "bias" else torch.randn(4))
    return conv


def test_folding_is_convolution_then_norm() -> None:
    """Output and gradients are those of detectron2's convolution; the names of weights stay."""
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    for bias in (False, True):
        plain, folding = _conv(bias), _conv(bias)
        fold_frozen_norms(folding)
        assert type(folding) is FoldedConv2d
        outputs = []
        for conv in (plain, folding):
            out = conv(x)
            out.square().sum().backward()
            outputs.append(out)
        torch.testing.assert_close(outputs[1], outputs[0])
        grads = [{k: p.grad for k, p in conv.named_parameters()} for conv in (plain, folding)]
        torch.testing.assert_close(grads[1], grads[0])
        assert folding.state_dict().keys() == plain.state_dict().keys()


def test_resnet_keeps_no_map_for_its_norms() -> None:
    """Every convolution of the ResNet folds, and its maps are channels last on the CPU; another norm stays itself."""
    backbone = build_resnet(depth=18, out_features=["res2"])
    assert all(type(m) is FoldedConv2d for m in backbone.modules() if isinstance(m, Conv2d))
    image = torch.randn(1, 3, 32, 32)
    out = backbone(image)["res2"]
    assert out.is_contiguous(memory_format=torch.channels_last)
    norms = build_resnet(depth=18, out_features=["res2"], norm="BN", freeze_at=0).train()
    before = norms.stem.conv1.norm.running_mean.clone()
    norms(image)
    assert not torch.equal(norms.stem.conv1.norm.running_mean, before)
