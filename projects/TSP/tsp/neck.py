"""The two levels that TSP adds on top of detectron2's FPN."""

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn


class ExtraLevels(nn.Module):
    """p6 = norm(conv(p5)) and p7 = norm(conv(relu(p6))), 3x3 convolutions of stride 2: the `top_block` of a
    `detectron2.modeling.FPN` that ends with p5.

    As in the official code, which RetinaNet's p6 and p7 differ from by the norms. These train; with several processes
    "SyncBN" (CUDA) or "naiveSyncBN" shares their statistics, "" leaves them out.
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
        """(B, C, h, w) -> p6, p7: half and a quarter of the size, rounded up."""
        p6 = self.p6(p5)
        return [p6, self.p7(F.relu(p6))]
