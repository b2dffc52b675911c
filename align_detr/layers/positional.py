"""Position encodings of feature maps."""

import math

import torch
from torch import Tensor, nn


class SinePositionEncoding(nn.Module):
    """Sines and cosines of each token's row and column (DETR, Carion et al. 2020, supplement A.4).

    `num_features` per axis: all features of the row come before those of the column, even features are sines, odd ones
    cosines. Positions are counted without padding, so that a token's encoding does not depend on the rest of the batch.
    `normalize` maps them to (0, 2 pi]; `offset` is added to the count before that (0 in DETR, -0.5 in the deformable
    family: token centres).
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
        """Encode the tokens of `padding` (B, h, w), True outside the image: (B, 2 * num_features, h, w) float32."""
        # (B, h, w) each; counted in integers, since PyTorch's cumsum of floats differs from run to run on CUDA
        rows, columns = ((~padding).cumsum(axis).float() for axis in (1, 2))
        if self.normalize:
            rows = (rows + self.offset) / (rows[:, -1:] + 1e-6) * 2 * math.pi
            columns = (columns + self.offset) / (columns[:, :, -1:] + 1e-6) * 2 * math.pi
        phases = torch.stack([rows, columns], dim=-1)
        return _sines(phases, self.num_features, self.temperature).permute(0, 3, 1, 2)


class LearnedPositionEncoding(nn.Module):
    """One learned vector per column and one per row (DETR, table 3), the column's features first.

    `size` is the number of vectors for rows and for columns. Padding has no effect.
    """

    def __init__(self, *, num_features: int = 128, size: int = 50) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(size, num_features)
        self.col_embed = nn.Embedding(size, num_features)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding: Tensor) -> Tensor:
        """Encode the tokens of `padding` (B, h, w): (B, 2 * num_features, h, w).

        Raise ValueError for a map with more than `size` rows or columns.
        """
        batch, height, width = padding.shape
        if max(height, width) > self.row_embed.num_embeddings:
            raise ValueError(
                f"A feature map of {height} x {width} is larger than the {self.row_embed.num_embeddings} learned "
                "positions per side: use SinePositionEncoding, or increase `size`."
            )
        columns = self.col_embed.weight[:width].expand(batch, height, -1, -1)
        rows = self.row_embed.weight[:height, None].expand(batch, -1, width, -1)
        return torch.cat([columns, rows], dim=-1).permute(0, 3, 1, 2)


def encode_coordinates(coordinates: Tensor, num_features: int, temperature: float = 10000.0) -> Tensor:
    """Return sines and cosines of coordinates in [0, 1]: (..., n) -> (..., n * num_features) float32.

    `num_features` per coordinate, in the order of the coordinates, sines and cosines interleaved; [0, 1] maps to
    [0, 2 pi] (DAB-DETR, Liu et al. 2022, section 4.1). The detectors pass y before x, as in `SinePositionEncoding`.
    """
    return _sines(coordinates.float() * (2 * math.pi), num_features, temperature)


def _sines(phases: Tensor, num_features: int, temperature: float) -> Tensor:
    """Return sines and cosines of `phases`: (..., n) -> (..., n * num_features)."""
    half = torch.arange(num_features, device=phases.device, dtype=torch.float32).div(2, rounding_mode="floor")
    phases = phases[..., None] / temperature ** (2 * half / num_features)
    return torch.stack([phases[..., 0::2].sin(), phases[..., 1::2].cos()], dim=-1).flatten(-3)
