"""Position encodings that the tokens of an image and the anchor points of the queries share (Anchor-DETR, Wang et al.
2022): sines and cosines of coordinates in [0, 1], adapted by a small perceptron.
"""

import torch
from torch import Tensor, nn

from align_detr.layers.mlp import MLP
from align_detr.layers.positional import encode_coordinates


def axis_centres(padding: Tensor) -> tuple[Tensor, Tensor]:
    """The centres of the rows (B, h) and of the columns (B, w) of each image, in [0, 1] of its own height and width:
    padding (B, h, w) bool -> float32. A padded row or column has the last centre of the image.
    """
    inside = (~padding).float()
    rows, columns = inside[:, :, 0].cumsum(1), inside[:, 0].cumsum(1)
    return (rows - 0.5) / rows[:, -1:], (columns - 0.5) / columns[:, -1:]


class PointEncoding(nn.Module):
    """Half of `embed_dim` features for y, half for x, and a perceptron of two layers: for ordinary attention."""

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.temperature = temperature
        self.point = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(self, padding: Tensor) -> Tensor:
        """The tokens' encodings: padding (B, h, w) bool -> (B, C, h, w)."""
        rows, columns = axis_centres(padding)
        h, w = padding.shape[1:]
        centres = torch.stack([columns[:, None].expand(-1, h, -1), rows[:, :, None].expand(-1, -1, w)], dim=-1)
        return self.encode_points(centres).permute(0, 3, 1, 2)

    def encode_queries(self, points: Tensor) -> Tensor:
        """What a query at each point brings as its position: points (..., 2) in the order x, y -> (..., C)."""
        return self.encode_points(points)

    def encode_points(self, points: Tensor) -> Tensor:
        """points (..., 2) in the order x, y -> (..., C)."""
        return self.point(encode_coordinates(points.flip(-1), self.embed_dim // 2, self.temperature))


class RowColumnEncoding(PointEncoding):
    """The same, and a second encoding of single coordinates, `embed_dim` features each: for attention that is decoupled
    into rows and columns. One perceptron serves both axes.
    """

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.axis = MLP(embed_dim, embed_dim, embed_dim, 2)

    def forward(self, padding: Tensor) -> Tensor:
        """The tokens' encodings, of x and then of y: padding (B, h, w) bool -> (B, 2 C, h, w)."""
        rows, columns = (self.encode_axis(x).transpose(1, 2) for x in axis_centres(padding))
        h, w = padding.shape[1:]
        return torch.cat([columns[:, :, None].expand(-1, -1, h, -1), rows[..., None].expand(-1, -1, -1, w)], dim=1)

    def encode_queries(self, points: Tensor) -> Tensor:
        """points (..., 2) in the order x, y -> (..., 3 C): the encodings of the point, of its x and of its y."""
        return torch.cat([self.encode_points(points), *map(self.encode_axis, points.unbind(-1))], dim=-1)

    def encode_axis(self, coordinates: Tensor) -> Tensor:
        """coordinates (...) of one axis -> (..., C)."""
        return self.axis(encode_coordinates(coordinates[..., None], self.embed_dim, self.temperature))
