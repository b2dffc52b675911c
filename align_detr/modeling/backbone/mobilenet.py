"""MobileNetV2 as a detectron2 backbone: small enough to fine-tune on a CPU."""

from collections.abc import Sequence

import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor
from torchvision.models import mobilenet_v2

# Output name -> index of its last module in torchvision's `features`, stride, channels.
_OUTPUTS = {"res2": (3, 4, 24), "res3": (6, 8, 32), "res4": (13, 16, 96), "res5": (17, 32, 320)}
_FROZEN = (2, *(last + 1 for last, _, _ in _OUTPUTS.values()))  # modules of the first 1, 2, ... stages


class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al. 2018) of torchvision, with its parameter names `features.*` and frozen batch norm.

    Outputs res2 to res5 have strides 4 to 32 and 24, 32, 96 and 320 channels. The layers after the last of
    `out_features` are left out. The first `freeze_at` stages do not train, as in detectron2's ResNet: 1 is the stem, 2
    ends with res2, 5 with res5. Maps and weights are stored channels last, which is faster on a CPU. Raise ValueError
    for an unknown output and for another number of stages.
    """

    def __init__(self, *, out_features: Sequence[str] = ("res5",), freeze_at: int = 0) -> None:
        super().__init__()
        unknown = [name for name in out_features if name not in _OUTPUTS]
        if unknown:
            raise ValueError(f"MobileNetV2 has no output '{unknown[0]}': choose from {', '.join(_OUTPUTS)}.")
        if not 0 <= freeze_at <= len(_FROZEN):
            raise ValueError(
                f"freeze_at is {freeze_at}, but MobileNetV2 has stages 1 to {len(_FROZEN)}: 0 freezes none."
            )
        self._out_features = list(out_features)
        last = max(_OUTPUTS[name][0] for name in out_features)
        self.features = FrozenBatchNorm2d.convert_frozen_batchnorm(mobilenet_v2(weights=None).features[: last + 1])
        self.features.to(memory_format=torch.channels_last)
        self.features[: (0, *_FROZEN)[freeze_at]].requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, channels, h / stride, w / stride) by name, sizes rounded up."""
        wanted = {_OUTPUTS[name][0]: name for name in self._out_features}
        outputs = {}
        x = x.contiguous(memory_format=torch.channels_last)
        for i, block in enumerate(self.features):
            x = block(x)
            if i in wanted:
                outputs[wanted[i]] = x
        return outputs

    @property
    def stages(self) -> dict[str, list[str]]:
        """The modules of the stages stem and res2 to res5, by which `train.freeze` may name them."""
        ends = [min(end, len(self.features)) for end in (0, *_FROZEN)]
        stages = zip(("stem", *_OUTPUTS), ends, ends[1:], strict=False)
        return {name: [f"features.{i}" for i in range(first, end)] for name, first, end in stages if first < end}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return {name: ShapeSpec(channels=_OUTPUTS[name][2], stride=_OUTPUTS[name][1]) for name in self._out_features}
