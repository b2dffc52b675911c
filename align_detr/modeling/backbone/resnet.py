"""Residual networks in torchvision's form (stride in the 3x3 convolution), built from detectron2's blocks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import Tensor

from align_detr.layers.frozen_norm import fold_frozen_norms

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def build_resnet(
    *,
    depth: int = 50,
    out_features: Sequence[str] = ("res5",),
    norm: str = "FrozenBN",
    freeze_at: int = 2,
    res5_dilation: int = 1,
) -> ResNet:
    """Build a ResNet of `depth` layers with outputs `out_features` (res2 to res5 at strides 4 to 32).

    The first `freeze_at` stages do not train. `res5_dilation=2` is the papers' "DC5": res5 keeps stride 16. As in
    torchvision, and unlike detectron2's RES5_DILATION, its first block is not dilated: official DC5 weights expect
    that. Raise ValueError for a depth other than 18, 34, 50, 101 and 152, and for a dilated ResNet-18 or ResNet-34.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"There is no ResNet of depth {depth}: choose from {', '.join(map(str, _BLOCKS))}.")
    deep = depth >= 50
    in_channels, out_channels, stages = 64, 256 if deep else 64, []
    for stage, num_blocks in enumerate(_BLOCKS[depth], start=2):
        dilated = stage == 5 and res5_dilation > 1
        stride = 1 if stage == 2 or dilated else 2
        options: dict[str, Any] = {"stride_per_block": [stride] + [1] * (num_blocks - 1), "norm": norm}
        if deep:
            options["bottleneck_channels"] = out_channels // 4
            options["dilation_per_block"] = [1] + [res5_dilation if dilated else 1] * (num_blocks - 1)
        elif dilated:
            raise ValueError(f"ResNet-{depth} has no dilated form: set res5_dilation to 1, or depth to 50 or more.")
        block = BottleneckBlock if deep else BasicBlock
        stages.append(
            ResNet.make_stage(block, num_blocks, in_channels=in_channels, out_channels=out_channels, **options)
        )
        in_channels, out_channels = out_channels, out_channels * 2
    stem = BasicStem(in_channels=3, out_channels=64, norm=norm)
    backbone = ChannelsLastResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)
    fold_frozen_norms(backbone)
    return backbone


class ChannelsLastResNet(ResNet):
    """detectron2's ResNet, whose maps on a CPU are stored channels last, as its convolutions prefer them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, channels, h / stride, w / stride) by name, sizes rounded up."""
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        outputs: dict[str, Tensor] = super().forward(x)
        return outputs


class SmallStem(CNNBlockBase):
    """Two 3x3 convolutions of stride 2, for images of about a hundred pixels."""

    def __init__(self, *, hidden_channels: int = 16, out_channels: int = 32, norm: str = "BN") -> None:
        super().__init__(3, out_channels, 4)
        self.conv1 = Conv2d(
            3, hidden_channels, 3, stride=2, padding=1, bias=False, norm=get_norm(norm, hidden_channels)
        )
        self.conv2 = Conv2d(
            hidden_channels, out_channels, 3, stride=2, padding=1, bias=False, norm=get_norm(norm, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, h, w) to features (B, out_channels, h / 4, w / 4)."""
        return F.relu_(self.conv2(F.relu_(self.conv1(x))))


def build_small_resnet(
    *,
    channels: Sequence[int] = (32, 64, 128, 192),
    blocks: Sequence[int] = (1, 2, 2, 1),
    out_features: Sequence[str] = ("res5",),
    norm: str = "BN",
) -> ResNet:
    """Build a ResNet of basic blocks, by default of 1.3 M parameters, to train from scratch on a CPU.

    Outputs res2 to res5 have strides 4 to 32. Raise ValueError if two stages have the same number of channels:
    detectron2's block would add its strided output to an input of another size.
    """
    if len(set(channels)) < len(channels):
        raise ValueError(f"Stages have equal channels {list(channels)}: give each stage another number.")
    stages, in_channels = [], channels[0]
    for stage, (out_channels, num_blocks) in enumerate(zip(channels, blocks, strict=True), start=2):
        strides = [1 if stage == 2 else 2] + [1] * (num_blocks - 1)
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                stride_per_block=strides,
                norm=norm,
            )
        )
        in_channels = out_channels
    return ResNet(SmallStem(out_channels=channels[0], norm=norm), stages, out_features=list(out_features))
