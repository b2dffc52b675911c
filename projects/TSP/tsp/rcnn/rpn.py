"""The proposal head of TSP-RCNN."""

from collections.abc import Sequence
from typing import Any, cast

from detectron2.config import configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.small_maps import normalize_one_value
from align_detr.projects.tsp.initialization import initialize_convolutions


class LevelNormTower(nn.Module):
    """3x3 convolutions that all levels share, each followed by a norm per level and ReLU."""

    def __init__(self, *, channels: int, num_convs: int, num_levels: int, norm: str) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(num_convs))
        norms = (nn.ModuleList(get_norm(norm, channels) for _ in range(num_convs)) for _ in range(num_levels))
        self.norms = cast(Sequence[nn.ModuleList], nn.ModuleList(norms))  # torch does not type what a list holds

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Apply the tower to the map of one level: x (B, C, h, w) -> (B, C, h, w)."""
        for conv, norm in zip(self.convs, self.norms[level], strict=True):
            x = normalize_one_value(norm, conv(x)).relu()
        return x


@RPN_HEAD_REGISTRY.register()
class TowerRPNHead(nn.Module):
    """Objectness and box deltas of all anchors, with a tower each (TSP, Sun et al. 2021).

    detectron2's head shares one convolution; the towers and their norms are those of the official code. A drop-in for
    `StandardRPNHead`: `RPN(head=...)`, or MODEL.RPN.HEAD_NAME "TowerRPNHead". `num_levels` is the number of feature
    maps, each of which has its norms; `norm` is one of detectron2's names.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_anchors: int = 9,
        num_levels: int = 5,
        num_convs: int = 2,
        norm: str = "SyncBN",
        box_dim: int = 4,
    ) -> None:
        super().__init__()
        self.objectness_tower, self.delta_tower = (
            LevelNormTower(channels=in_channels, num_convs=num_convs, num_levels=num_levels, norm=norm)
            for _ in range(2)
        )
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * box_dim, 1)
        initialize_convolutions(self)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Sequence[ShapeSpec]) -> dict[str, Any]:
        """Return the constructor's arguments from a yacs config; the convolutions are as many as MODEL.RPN.CONV_DIMS.

        Raise ConfigError for maps or anchors that the levels cannot share, and for another number of channels.
        """
        anchors = build_anchor_generator(cfg, input_shape)
        if len({shape.channels for shape in input_shape}) > 1 or len(set(anchors.num_anchors)) > 1:
            raise ConfigError(
                "The levels of TowerRPNHead share their convolutions, but MODEL.RPN.IN_FEATURES differ: give all of "
                "them the same number of channels and of anchors per cell."
            )
        widths = list(cfg.MODEL.RPN.CONV_DIMS)
        if any(width not in (-1, input_shape[0].channels) for width in widths):
            raise ConfigError(
                f"MODEL.RPN.CONV_DIMS is {widths}, but the towers of TowerRPNHead keep the number of channels: give -1 "
                "per convolution."
            )
        return {
            "in_channels": input_shape[0].channels,
            "num_anchors": anchors.num_anchors[0],
            "num_levels": len(input_shape),
            "num_convs": len(widths),
            "box_dim": anchors.box_dim,
        }

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness logits (B, A, h, w) and deltas (B, 4 A, h, w) of each map (B, C, h, w), float32."""
        objectness, deltas = [], []
        for level, x in enumerate(features):
            objectness.append(self.objectness_logits(self.objectness_tower(x, level)).float())
            deltas.append(self.anchor_deltas(self.delta_tower(x, level)).float())
        return objectness, deltas
