"""detectron2's ResNet with fused convolutions, channels last."""

from typing import TypeGuard, cast

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import Tensor, nn

from align_detr.inference.optimized.fused import Kernels, is_plain
from align_detr.layers.frozen_norm import FoldedConv2d
from align_detr.modeling.backbone.resnet import ChannelsLastResNet, SmallStem

KNOWN = (BasicBlock, BasicStem, BottleneckBlock, SmallStem)


class FusedResNet(Backbone):
    """A ResNet whose norms are folded: each block is its convolutions, the last of which adds the shortcut."""

    def __init__(self, resnet: ResNet, kernels: Kernels) -> None:
        super().__init__()
        self.stem = FusedStem(resnet.stem, kernels)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FusedBlock(block, kernels, first=i == 0) for i, block in enumerate(stage.children())))
            for stage in cast(list[nn.Module], resnet.stages)  # as detectron2 holds them
        )
        self.names = ["stem", *resnet.stage_names]
        self._out_features, self._shapes = list(resnet._out_features), resnet.output_shape()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs by name, as the ResNet does.

        A CPU computes the images one after the other: the maps of several are larger than its cache, and fresh memory
        in each layer.
        """
        if len(x) == 1 or x.device.type != "cpu":
            return self._outputs(x)
        of_images = [self._outputs(image) for image in x.split(1)]
        return {name: torch.cat([outputs[name] for outputs in of_images]) for name in of_images[0]}

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        outputs = {"stem": x} if "stem" in self._out_features else {}
        for name, stage in zip(self.names[1:], self.stages, strict=True):
            x = stage(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return self._shapes


class FusedStem(nn.Module):
    """The convolutions of a `BasicStem` or a `SmallStem`, and the pooling of the first."""

    def __init__(self, stem: nn.Module, kernels: Kernels) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(kernels.convolution(conv, relu=True) for conv in _convolutions(stem)))
        self.pool = isinstance(stem, BasicStem)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, h, w) to maps of stride 4."""
        x = self.layers(x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1) if self.pool else x


class FusedBlock(nn.Module):
    """A block of two or three convolutions and its shortcut.

    The sum is written into the shortcut's map. The input of a stage's `first` block may be an output of the backbone,
    and is copied where it is the shortcut itself.
    """

    def __init__(self, block: nn.Module, kernels: Kernels, *, first: bool) -> None:
        super().__init__()
        *inner, self.last = _convolutions(block)
        self.inner = nn.Sequential(*(kernels.convolution(conv, relu=True) for conv in inner))
        self.last = kernels.convolution(self.last)
        shortcut = getattr(block, "shortcut", None)
        self.shortcut = None if shortcut is None else kernels.convolution(shortcut)
        self.copy = first and shortcut is None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the next map."""
        inner = self.inner(x)
        if self.shortcut is not None:
            x = self.shortcut(x)
        return self.last.add_relu(inner, x.clone() if self.copy else x)


def _convolutions(block: nn.Module) -> list[Conv2d]:
    """Return conv1, conv2 ... of a block or stem."""
    return [conv for name, conv in block.named_children() if name.startswith("conv")]


def can_fuse(resnet: nn.Module) -> TypeGuard[ResNet]:
    """Say whether a model is a ResNet of known blocks, without classifier, whose norms have all been folded."""
    if type(resnet) not in (ResNet, ChannelsLastResNet) or resnet.num_classes is not None:
        return False
    blocks = [resnet.stem, *(block for stage in resnet.stages for block in stage)]
    return all(type(block) in KNOWN for block in blocks) and all(
        type(conv) in (Conv2d, FoldedConv2d) and is_plain(conv) for block in blocks for conv in block.children()
    )
