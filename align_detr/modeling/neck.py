"""From backbone maps to a sequence of tokens with positions."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.small_maps import StridedConv2d
from align_detr.structures import Memory, Sizes


def padding_mask(valid: Sizes, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return (B, h, w) bool, True outside the top left `valid[b]` = (rows, columns) of a map of `shape`."""
    rows, columns = (torch.arange(n, device=device) for n in shape)
    if isinstance(valid, Tensor):
        height, width = valid[:, 0, None, None], valid[:, 1, None, None]
        return ~((rows[:, None] < height) & (columns < width))
    inside = torch.stack([(rows[:, None] < h) & (columns < w) for h, w in valid])
    return ~inside


def valid_sizes(images: Sizes, padded: tuple[int, int], shape: tuple[int, int]) -> Sizes:
    """Return the `valid_size` of each image, as a tensor (B, 2) if `images` is one."""
    if not isinstance(images, Tensor):
        return [valid_size(size, padded, shape) for size in images]
    cells = [(images[:, i] * shape[i] + (padded[i] - 1)) // padded[i] for i in range(2)]
    return torch.stack(cells, dim=1).clamp(min=1)


def is_full(valid: Sizes, shape: tuple[int, int]) -> bool:
    """Say whether all images are known to cover a whole map of `shape`; of sizes in a tensor that is not known."""
    return not isinstance(valid, Tensor) and all(size == shape for size in valid)


def valid_size(image: tuple[int, int], padded: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of a map of `shape` that lie in the image if the padded image is resized to the map
    by nearest neighbour.

    Row i of the map reads image row floor(i * padded_height / rows), so the count is the ceiling of rows * height /
    padded_height, at least 1.
    """
    rows, columns = (max(1, -(-n * cells // total)) for n, total, cells in zip(image, padded, shape, strict=True))
    return rows, columns


class SingleScaleNeck(nn.Module):
    """A 1x1 convolution of one backbone map to `embed_dim` channels, flattened to tokens (DETR, section 3.2)."""

    def __init__(self, *, in_feature: str, in_channels: int, embed_dim: int, position: nn.Module) -> None:
        super().__init__()
        self.in_feature = in_feature
        self.projection = nn.Conv2d(in_channels, embed_dim, kernel_size=1)
        self.position = position

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> Memory:
        """Make tokens of features[in_feature], (B, in_channels, h, w), of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels. Raise ConfigError if the feature is missing.
        """
        if self.in_feature not in features:
            raise ConfigError(
                f"model.neck.in_feature is '{self.in_feature}', but the backbone gives {', '.join(features)}: "
                "set it to one of these, or add it to model.backbone.out_features."
            )
        x = self.projection(features[self.in_feature])
        shape = (x.shape[-2], x.shape[-1])
        valid = valid_sizes(image_sizes, padded_size, shape)
        mask = padding_mask(valid, shape, x.device)
        position = self.position(mask).to(x.dtype)
        return Memory(
            tokens=x.flatten(2).transpose(1, 2),
            position=position.flatten(2).transpose(1, 2),
            padding=None if is_full(valid, shape) else mask.flatten(1),  # None: attention's fast path
            shapes=[shape],
            valid_sizes=[valid],
        )


class MultiScaleNeck(nn.Module):
    """A 1x1 convolution and group norm per backbone map, to `embed_dim` channels, whose tokens are concatenated; a
    learned vector per level is added to the positions (Deformable-DETR, Zhu et al. 2021, appendix A.2).

    `in_channels` names the maps, finest first, and their channels. If `num_levels` is larger than their number, a 3x3
    convolution of stride 2 with group norm makes each further level: the first from the last backbone map, before its
    projection, each other one from the level before.
    """

    def __init__(
        self,
        *,
        in_channels: Mapping[str, int],
        embed_dim: int,
        position: nn.Module,
        num_levels: int = 4,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise ConfigError(
                f"model.neck.num_levels is {num_levels}, but in_channels names the {len(in_channels)} maps "
                f"{', '.join(in_channels)}: increase num_levels, or name fewer maps."
            )
        self.in_features = list(in_channels)
        self.position = position
        channels = [*in_channels.values()]
        extra = [channels[-1] if i == 0 else embed_dim for i in range(num_levels - len(channels))]
        self.levels = nn.ModuleList(
            [_projection(nn.Conv2d(c, embed_dim, kernel_size=1), num_groups) for c in channels]
            + [_projection(StridedConv2d(c, embed_dim, kernel_size=3, stride=2, padding=1), num_groups) for c in extra]
        )
        self.level_embed = nn.Parameter(torch.randn(num_levels, embed_dim))

    def forward(self, features: Mapping[str, Tensor], image_sizes: Sizes, padded_size: tuple[int, int]) -> Memory:
        """Make tokens of features[name], (B, in_channels[name], h, w) each, of a batch padded to `padded_size`.

        Sizes are (height, width) in pixels. Raise ConfigError if a feature is missing.
        """
        maps = self._project(features)
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        valid = [valid_sizes(image_sizes, padded_size, shape) for shape in shapes]
        masks = [padding_mask(v, shape, maps[0].device) for v, shape in zip(valid, shapes, strict=True)]
        tokens = torch.cat([_as_tokens(x) for x in maps], dim=1)  # (B, S, C)
        positions = [_as_tokens(self.position(m)) + e for m, e in zip(masks, self.level_embed, strict=True)]
        full = all(map(is_full, valid, shapes))
        return Memory(
            tokens=tokens,
            position=torch.cat(positions, dim=1).to(tokens.dtype),
            padding=None if full else torch.cat([m.flatten(1) for m in masks], dim=1),
            shapes=shapes,
            valid_sizes=valid,
        )

    def _project(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the map of each level, (B, C, h, w), finest first."""
        for name in self.in_features:
            if name not in features:
                raise ConfigError(
                    f"model.neck.in_channels names '{name}', but the backbone gives {', '.join(features)}: "
                    "name one of these, or add it to model.backbone.out_features."
                )
        inputs = [features[name] for name in self.in_features]
        maps = [level(x) for level, x in zip(self.levels, inputs, strict=False)]
        x = inputs[-1]
        for level in self.levels[len(inputs) :]:
            x = level(x)
            maps.append(x)
        return maps


def _as_tokens(x: Tensor) -> Tensor:
    """Flatten a map, (B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def _projection(conv: nn.Conv2d, num_groups: int) -> nn.Sequential:
    """Initialise a convolution and append its group norm."""
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(num_groups, conv.out_channels)))
