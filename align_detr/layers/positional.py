"""Position encodings of feature maps."""

import math

import torch
from torch import Tensor, nn


class SinePositionEncoding(nn.Module):
    """Sines and cosines of each token's row and column (DETR, Carion et al. 2020, supplement A.4).

    `num_features` per axis; all features of the row come first, then those of the column; even features are sines, odd
    ones cosines. Positions are counted inside the image (padding does not count), so a token has the same encoding
    whatever it is batched with. `normalize` maps them to (0, 2 pi]; `offset` is added to the count before that (0 in
    DETR, -0.5 in the deformable family: pixel centres).
    """

    def __init__(
        self, *, num_features: int = 128, temperature: float = 10000.0, normalize: bool = True, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.temperature = temperature
        self.normalize = normalize
        self.offset = offset

    def forward(self, padding: Tensor) -> Tensor:
        """padding (B, h, w) bool, True outside the image -> (B, 2 * num_features, h, w) float32."""
        # counted in whole numbers: on CUDA, PyTorch's cumsum of floats is not the same in each run
        rows, columns = ((~padding).cumsum(axis).float() for axis in (1, 2))
        if self.normalize:
            rows = (rows + self.offset) / (rows[:, -1:] + 1e-6) * 2 * math.pi
            columns = (columns + self.offset) / (columns[:, :, -1:] + 1e-6) * 2 * math.pi
        phases = torch.stack([rows, columns], dim=-1)
        return _sines(phases, self.num_features, self.temperature).permute(0, 3, 1, 2)


class LearnedPositionEncoding(nn.Module):
    """One learned vector a column and one a row (DETR, table 3): the column's features come first, and padding plays no
    part.

    `size` is the number of rows and of columns that have a vector; a larger map raises ValueError.
    """

    def __init__(self, *, num_features: int = 128, size: int = 50) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(size, num_features)
        self.col_embed = nn.Embedding(size, num_features)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding: Tensor) -> Tensor:
        """padding (B, h, w) bool -> (B, 2 * num_features, h, w)."""
        batch, height, width = padding.shape
        if max(height, width) > self.row_embed.num_embeddings:
            raise ValueError(
                f"a feature map of {height} x {width} is larger than the {self.row_embed.num_embeddings} learned "
                "positions a side: use SinePositionEncoding, or raise `size`"
            )
        columns = self.col_embed.weight[:width].expand(batch, height, -1, -1)
        rows = self.row_embed.weight[:height, None].expand(batch, -1, width, -1)
        return torch.cat([columns, rows], dim=-1).permute(0, 3, 1, 2)


def encode_coordinates(coordinates: Tensor, num_features: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of coordinates in [0, 1]: (..., n) -> (..., n * num_features) float32.

    `num_features` a coordinate, in the order of the coordinates, sines and cosines interleaved; [0, 1] maps to
    [0, 2 pi] (DAB-DETR, Liu et al. 2022, section 4.1). Give the coordinates in the order that is wanted: the detectors
    here take y before x, as `SinePositionEncoding` does.
    """
    return _sines(coordinates.float() * (2 * math.pi), num_features, temperature)


def _sines(phases: Tensor, num_features: int, temperature: float) -> Tensor:
    """(..., n) -> (..., n * num_features)."""
    half = torch.arange(num_features, device=phases.device, dtype=torch.float32).div(2, rounding_mode="floor")
    phases = phases[..., None] / temperature ** (2 * half / num_features)
    return torch.stack([phases[..., 0::2].sin(), phases[..., 1::2].cos()], dim=-1).flatten(-3)
