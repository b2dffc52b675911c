"""The dense part of TSP-FCOS: every point of every level with its features, class scores and location."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.neck import padding_mask, valid_sizes
from align_detr.projects.tsp.initialization import initialize_convolutions
from align_detr.structures import Sizes


@dataclass
class Points:
    """All P points of a batch, level by level and row by row.

    features (B, C, P); logits (B, P, K) of the dense classifier; position (B, P, D) encodings; `padding` (B, P), True
    outside the image; `inside[b]`, the number of points inside image b, none where sizes are a tensor; locations (P, 2)
    as (x, y) in pixels; strides and levels (P,); `image_sizes[b]` = (height, width) in pixels.
    """

    features: Tensor
    logits: Tensor
    position: Tensor
    padding: Tensor
    inside: list[int]
    locations: Tensor
    strides: Tensor
    levels: Tensor
    image_sizes: Sizes


class PointTowers(nn.Module):
    """A class tower and a box tower that all levels share, and a dense sigmoid classifier (TSP, section 4.2).

    Each tower has `num_convs` convolutions with GroupNorm and ReLU. The features of a point are the outputs of both
    towers; the classifier reads the class tower, and no box is predicted here. The paper describes a binary classifier
    of features of interest (`num_classes=1`); the default is the official code's, with all classes. `strides[l]` is the
    stride of `in_features[l]`; `init_std` is the standard deviation of all convolutions' initial weights.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str] = ("p3", "p4", "p5", "p6", "p7"),
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        channels: int = 256,
        num_convs: int = 4,
        num_classes: int = 80,
        position: nn.Module,
        prior: float = 0.01,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        if len(in_features) != len(strides):
            raise ConfigError(
                f"model.points has {len(in_features)} in_features and {len(strides)} strides: give one per map."
            )
        self.in_features = list(in_features)
        self.strides = list(strides)
        self.class_tower = _build_tower(channels, num_convs)
        self.box_tower = _build_tower(channels, num_convs)
        self.class_embed = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.position = position
        for part in (self.class_tower, self.box_tower, self.class_embed):
            initialize_convolutions(part, std=init_std)
        nn.init.constant_(self.class_embed.get_parameter("bias"), -math.log((1 - prior) / prior))

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> Points:
        """Return all points of features[name] (B, channels, h, w), of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels. A point is inside its image where a nearest-neighbour view of the padded
        image is. The official code stretches a mask of the largest unpadded image over the maps, which shifts all
        positions unless the sizes are equal.
        """
        maps = [self._require_map(features, name) for name in self.in_features]
        classes = [self.class_tower(x) for x in maps]
        features_of_levels = [
            torch.cat([c, self.box_tower(x)], dim=1).flatten(2) for c, x in zip(classes, maps, strict=True)
        ]
        logits = [self.class_embed(c).flatten(2) for c in classes]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        valid = [valid_sizes(image_sizes, padded_size, shape) for shape in shapes]
        masks = [padding_mask(v, shape, maps[0].device) for v, shape in zip(valid, shapes, strict=True)]
        locations = [
            _locations(shape, stride, maps[0].device) for shape, stride in zip(shapes, self.strides, strict=True)
        ]
        counts = [h * w for h, w in shapes]
        return Points(
            features=torch.cat(features_of_levels, dim=-1),
            logits=torch.cat(logits, dim=-1).transpose(1, 2),
            position=torch.cat([self.position(mask).flatten(2) for mask in masks], dim=-1).transpose(1, 2),
            padding=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            inside=_count_inside(valid),
            locations=torch.cat(locations),
            strides=torch.cat(
                [
                    x.new_full((n,), stride, dtype=torch.float32)
                    for x, n, stride in zip(maps, counts, self.strides, strict=True)
                ]
            ),
            levels=torch.cat([masks[0].new_full((n,), i, dtype=torch.int64) for i, n in enumerate(counts)]),
            image_sizes=image_sizes if isinstance(image_sizes, Tensor) else list(image_sizes),
        )

    def _require_map(self, features: Mapping[str, Tensor], name: str) -> Tensor:
        if name not in features:
            raise ConfigError(
                f"model.points.in_features names '{name}', but the backbone gives {', '.join(features)}: name "
                "some of these."
            )
        return features[name]


def _count_inside(valid: Sequence[Sizes]) -> list[int]:
    """Return the number of points inside each image, none for sizes in tensors."""
    counts: list[int] = []
    for level in valid:
        if not isinstance(level, Tensor):
            counts = [n + h * w for n, (h, w) in zip(counts or [0] * len(level), level, strict=True)]
    return counts


def _build_tower(channels: int, num_convs: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(num_convs):
        blocks += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(32, channels), nn.ReLU()]
    return nn.Sequential(*blocks)


def _locations(shape: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Return (column, row) of each cell times the stride, plus half the stride rounded down: (h * w, 2)."""
    rows, columns = (torch.arange(n, device=device, dtype=torch.float32) * stride + stride // 2 for n in shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
