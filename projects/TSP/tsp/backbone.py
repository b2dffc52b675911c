"""ResNets in the form of the MSRA weights that TSP starts from, and the two levels that TSP adds to an FPN."""

from collections.abc import Sequence
from functools import partial

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import Tensor, nn

from align_detr.layers.small_maps import convolve_narrow, normalize_one_value


class BGRStem(BasicStem):
    """detectron2's stem for RGB images and weights trained on BGR images: it reverses the channels.

    The rest of the library then handles RGB only, whatever the weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Reverse the channels and apply the stem: (B, 3, h, w) RGB -> (B, 64, h / 4, w / 4)."""
        return super().forward(x.flip(1))


def build_msra_resnet(
    *,
    depth: int = 50,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    norm: str = "FrozenBN",
    freeze_at: int = 2,
) -> ResNet:
    """Build the original ResNet of `depth` layers for detectron2's ImageNetPretrained/MSRA weights.

    The stride is in the 1x1 convolutions. Images are RGB, 0 to 255, minus the mean and not divided. The first
    `freeze_at` stages do not train.
    """
    options = {"stride_in_1x1": True} if depth >= 50 else {}  # the basic blocks of smaller networks have no 1x1
    stages = ResNet.make_default_stages(depth, norm=norm, **options)
    return ResNet(BGRStem(norm=norm), stages, out_features=list(out_features), freeze_at=freeze_at)


class ExtraLevels(nn.Module):
    """The `top_block` of a `detectron2.modeling.FPN` that ends with p5: p6 = norm(conv(p5)), p7 = norm(conv(relu(p6))).

    The convolutions are 3x3 with stride 2. As in the official code, the norms train, unlike RetinaNet, which has none.
    With several processes "SyncBN" (CUDA) or "naiveSyncBN" shares their statistics; "" leaves them out. A single value
    per channel, of one image of at most 128 pixels, has no variance: it is normalised as in evaluation.
    """

    def __init__(self, *, channels: int = 256, in_feature: str = "p5", norm: str = "SyncBN") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = Conv2d(channels, channels, 3, stride=2, padding=1, norm=get_norm(norm, channels))
        self.p7 = Conv2d(channels, channels, 3, stride=2, padding=1, norm=get_norm(norm, channels))
        for conv in (self.p6, self.p7):
            weight_init.c2_xavier_fill(conv)

    def forward(self, p5: Tensor) -> list[Tensor]:
        """Return p6 and p7 of p5 (B, C, h, w): half and a quarter of its size, rounded up."""
        p6 = _convolve(self.p6, p5)
        return [p6, _convolve(self.p7, F.relu(p6))]


def _convolve(conv: Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution and its norm, also to a map of one value."""
    x = convolve_narrow(partial(nn.Conv2d.forward, conv), x)
    norm: nn.Module | None = conv.norm
    return x if norm is None else normalize_one_value(norm, x)
