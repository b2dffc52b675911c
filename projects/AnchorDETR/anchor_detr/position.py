"""Position encodings that tokens and anchor points share (Anchor-DETR, Wang et al. 2022).

They are sines and cosines of coordinates in [0, 1], adapted by a small MLP.
"""

import torch
from torch import Tensor, nn

from align_detr.layers.mlp import MLP
from align_detr.layers.positional import encode_coordinates


def axis_centres(padding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centres of the rows (B, h) and of the columns (B, w), in [0, 1] of the image's own height and width.

    padding (B, h, w) bool -> float32. A padded row or column has the last centre of the image.
    """
    inside = (~padding).float()
    rows, columns = inside[:, :, 0].cumsum(1), inside[:, 0].cumsum(1)
    return (rows - 0.5) / rows[:, -1:], (columns - 0.5) / columns[:, -1:]


class PointEncoding(nn.Module):
    """An encoding of points for ordinary attention: half of the features for y, half for x, and a two-layer MLP."""

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.temperature = temperature
        self.point = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(self, padding: Tensor) -> Tensor:
        """Encode the centres of the tokens: padding (B, h, w) bool -> (B, C, h, w)."""
        rows, columns = axis_centres(padding)
        h, w = padding.shape[1:]
        centres = torch.stack([columns[:, None].expand(-1, h, -1), rows[:, :, None].expand(-1, -1, w)], dim=-1)
        return self.encode_points(centres).permute(0, 3, 1, 2)

    def encode_queries(self, points: Tensor) -> Tensor:
        """Return the position of a query at each point: points (..., 2) in the order x, y -> (..., C)."""
        return self.encode_points(points)

    def encode_points(self, points: Tensor) -> Tensor:
        """Encode points (..., 2) in the order x, y -> (..., C)."""
        return self.point(encode_coordinates(points.flip(-1), self.embed_dim // 2, self.temperature))


class RowColumnEncoding(PointEncoding):
    """PointEncoding with a second encoding, of single coordinates, for row-column decoupled attention.

    A coordinate has `embed_dim` features; both axes share one MLP.
    """

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.axis = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(self, padding: Tensor) -> Tensor:
        """Encode x and then y of the tokens: padding (B, h, w) bool -> (B, 2 C, h, w)."""
        rows, columns = (self.encode_axis(x).transpose(1, 2) for x in axis_centres(padding))
        h, w = padding.shape[1:]
        return torch.cat([columns[:, :, None].expand(-1, -1, h, -1), rows[..., None].expand(-1, -1, -1, w)], dim=1)

    def encode_queries(self, points: Tensor) -> Tensor:
        """Encode each point, its x and its y: points (..., 2) in the order x, y -> (..., 3 C)."""
        return torch.cat([self.encode_points(points), *map(self.encode_axis, points.unbind(-1))], dim=-1)

    def encode_axis(self, coordinates: Tensor) -> Tensor:
        """Encode coordinates (...) of one axis -> (..., C)."""
        return self.axis(encode_coordinates(coordinates[..., None], self.embed_dim, self.temperature))
