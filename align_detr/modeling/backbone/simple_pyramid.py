"""The simple feature pyramid of plain vision transformers."""

import math
from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from align_detr.errors import ConfigError
from align_detr.modeling.backbone.four_stages import OUTPUTS, cropped

_STRIDES = {name: 4 * 2**i for i, name in enumerate(OUTPUTS)}


class SimplePyramid(Backbone):
    """A pyramid out of one map, the last of a plain vision transformer (ViTDet, Li et al. 2022, section 3).

    `net` is a backbone with the output `in_feature`, of stride 16 for a patch of 16 pixels. Outputs are res2 to res5
    with strides 4 to 32, of `out_channels` each: a transposed 2x2 convolution of stride 2 doubles a map's size, twice
    for four times (layer norm and GELU between them), and a pooling halves it; a 1x1 and a 3x3 convolution follow, each
    with a layer norm. Raise ConfigError for an output with more than 4 or less than 1/2 of the size of the map, and for
    strides that are no powers of two of it.
    """

    def __init__(
        self,
        *,
        net: Backbone,
        in_feature: str = "res4",
        out_channels: int = 256,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
    ) -> None:
        super().__init__()
        shape = net.output_shape().get(in_feature)
        if shape is None or shape.channels is None or shape.stride is None:
            raise ConfigError(
                f"model.backbone.in_feature is '{in_feature}', but the net gives {', '.join(net.output_shape())}: set "
                "it to one of these."
            )
        possible = [name for name, stride in _STRIDES.items() if shape.stride / stride in (0.5, 1, 2, 4)]
        if not possible:
            raise ConfigError(
                f"model.backbone.in_feature '{in_feature}' has stride {shape.stride}, of which SimplePyramid makes no "
                "stride of 4 to 32: set model.backbone.net to a model whose stride is a power of two, such as a ViT of "
                "patch 16."
            )
        self._out_features = list(out_features)
        self._out_channels = out_channels
        self.net = net
        self.in_feature = in_feature
        self.levels = nn.ModuleDict()
        for name in out_features:
            doublings = math.log2(shape.stride / _STRIDES[name]) if name in _STRIDES else None
            if doublings not in (-1.0, 0.0, 1.0, 2.0):
                raise ConfigError(
                    f"SimplePyramid has no output '{name}' of a map of stride {shape.stride}: set "
                    f"model.backbone.out_features to some of {', '.join(possible)}."
                )
            self.levels[name] = _level(shape.channels, out_channels, int(doublings))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, out_channels, h / stride, w / stride) by name, sizes rounded up."""
        height, width = x.shape[-2:]
        last = self.net(x)[self.in_feature]
        return cropped({name: level(last) for name, level in self.levels.items()}, self.output_shape(), height, width)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return {name: ShapeSpec(channels=self._out_channels, stride=_STRIDES[name]) for name in self._out_features}


def _level(channels: int, out_channels: int, doublings: int) -> nn.Sequential:
    """Return the layers of one output, from a map of `channels`."""
    layers: list[nn.Module] = []
    if doublings == -1:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))
    for i in range(max(doublings, 0)):
        layers += [LayerNorm2d(channels, eps=1e-6), nn.GELU()] if i else []
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    for kernel, inputs in ((1, channels), (3, out_channels)):
        layers += [
            nn.Conv2d(inputs, out_channels, kernel, padding=kernel // 2, bias=False),
            LayerNorm2d(out_channels, eps=1e-6),
        ]
    return nn.Sequential(*layers)
