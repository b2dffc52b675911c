"""The transformer of TSP-RCNN: from pooled regions to encoded tokens."""

import math

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import xyxy_to_cxcywh
from align_detr.layers.initialization import initialize_matrices
from align_detr.projects.tsp.encoder import token_set
from align_detr.projects.tsp.rcnn.rois import RoIs
from align_detr.structures import Memory


class BoxPositionEncoding(nn.Module):
    """Sines and cosines of the eight numbers cx, cy, w, h, x0, y0, x1, y1 of a box, `embed_dim` / 8 features each.

    As in DETR, the numbers are multiplied by 2 pi; even features are sines, odd ones cosines. Descriptions of the paper
    name the first four numbers only; the eight follow the official code. Raise ConfigError unless `embed_dim` is a
    multiple of 16.
    """

    def __init__(self, *, embed_dim: int = 512, temperature: float = 10000.0) -> None:
        super().__init__()
        if embed_dim % 16:
            raise ConfigError(f"embed_dim of BoxPositionEncoding is {embed_dim}: set it to a multiple of 16.")
        self.num_features = embed_dim // 8
        self.temperature = temperature

    def forward(self, boxes: Tensor) -> Tensor:
        """Encode boxes (..., 4) xyxy, divided by the sides of their image -> (..., C) float32."""
        numbers = torch.cat([xyxy_to_cxcywh(boxes), boxes], dim=-1)[..., None]
        exponent = torch.arange(0, self.num_features, 2, device=boxes.device, dtype=torch.float32) / self.num_features
        phase = numbers * 2 * math.pi / self.temperature**exponent
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-3)


class RoITransformer(nn.Module):
    """A transformer in which the regions attend to each other (TSP, Sun et al. 2021, section 4.2).

    Tokens are LN(projected region + projected position); the encoder adds the position itself to queries and keys.
    Regions have `in_channels` channels and `resolution` x `resolution` cells. Matrices start from Xavier's uniform
    distribution.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        embed_dim: int = 512,
        in_channels: int = 256,
        resolution: int = 7,
        temperature: float = 10000.0,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channels * resolution**2, embed_dim)
        self.position = BoxPositionEncoding(embed_dim=embed_dim, temperature=temperature)
        self.position_projection = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.encoder = encoder
        initialize_matrices(self)

    def forward(self, pooled: Tensor, rois: RoIs, previous: Tensor | None = None) -> Tensor:
        """Encode regions: pooled (N, C', r, r) of all images, concatenated, N the sum of `rois.counts` -> (B, Q, C).

        `previous` (B, Q, C) is the output of the stage before, if there is one.
        """
        return self.encoder(self.tokens(pooled, rois, previous)).tokens

    def tokens(self, pooled: Tensor, rois: RoIs, previous: Tensor | None = None) -> Memory:
        """Return the encoder's input; a later stage takes (tokens + `previous`) / sqrt(2), as in the official code."""
        position = self.position(rois.boxes / rois.sides)
        content = rois.padded(self.projection(pooled.flatten(1)))
        tokens = self.norm(content + self.position_projection(position))
        if previous is not None:
            tokens = (tokens + previous) / math.sqrt(2)
        return token_set(tokens, position, rois.valid if rois.is_padded else None)
