"""From backbone maps to a sequence of tokens with positions."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.structures import Memory


def padding_mask(valid: Sequence[tuple[int, int]], shape: tuple[int, int], device: torch.device) -> Tensor:
    """(B, h, w) bool, True outside the top left `valid[b]` = (rows, columns) of a map of `shape`."""
    rows, columns = (torch.arange(n, device=device) for n in shape)
    inside = torch.stack([(rows[:, None] < h) & (columns < w) for h, w in valid])
    return ~inside


def valid_size(image: tuple[int, int], padded: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map of `shape` that a nearest-neighbour view of the padded image places inside the image.

    Row i looks at image row floor(i * padded_height / rows), so the count is the ceiling of rows * height /
    padded_height, at least 1.
    """
    return tuple(max(1, -(-n * cells // total)) for n, total, cells in zip(image, padded, shape, strict=True))


class SingleScaleNeck(nn.Module):
    """Projects one backbone map to `embed_dim` channels with a 1x1 convolution and flattens it (DETR, section 3.2)."""

    def __init__(self, *, in_feature: str, in_channels: int, embed_dim: int, position: nn.Module) -> None:
        super().__init__()
        self.in_feature = in_feature
        self.projection = nn.Conv2d(in_channels, embed_dim, kernel_size=1)
        self.position = position

    def forward(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]
    ) -> Memory:
        """features[in_feature] (B, in_channels, h, w) of a batch padded to `padded_size`; sizes are (height, width) in
        pixels.
        """
        if self.in_feature not in features:
            raise ConfigError(
                f"model.neck.in_feature is '{self.in_feature}', but the backbone gives {', '.join(features)}: "
                "set it to one of these, or add it to model.backbone.out_features"
            )
        x = self.projection(features[self.in_feature])
        shape = (x.shape[-2], x.shape[-1])
        valid = [valid_size(size, padded_size, shape) for size in image_sizes]
        mask = padding_mask(valid, shape, x.device)
        position = self.position(mask).to(x.dtype)
        return Memory(
            tokens=x.flatten(2).transpose(1, 2),
            position=position.flatten(2).transpose(1, 2),
            padding=None
            if all(v == shape for v in valid)
            else mask.flatten(1),  # without padding attention takes its fast path
            shapes=[shape],
            valid_sizes=[valid],
        )
