"""ResNets in the form of the MSRA weights that TSP starts from."""

from collections.abc import Sequence

from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import Tensor


class BGRStem(BasicStem):
    """The ordinary stem for RGB images under weights that were trained on BGR ones: it turns the channels round.

    The rest of the library then needs to know RGB only, whatever the weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) RGB -> (B, 64, h / 4, w / 4)."""
        return super().forward(x.flip(1))


def build_msra_resnet(
    *,
    depth: int = 50,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    norm: str = "FrozenBN",
    freeze_at: int = 2,
) -> ResNet:
    """The original ResNet of `depth` layers, stride in the 1x1 convolutions, for detectron2's ImageNetPretrained/MSRA
    weights: images in RGB less their mean, in 0..255 and not divided; the first `freeze_at` stages do not train.
    """
    options = {"stride_in_1x1": True} if depth >= 50 else {}  # the basic blocks of smaller ones have no 1x1
    stages = ResNet.make_default_stages(depth, norm=norm, **options)
    return ResNet(BGRStem(norm=norm), stages, out_features=list(out_features), freeze_at=freeze_at)
