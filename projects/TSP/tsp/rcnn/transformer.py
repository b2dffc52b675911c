"""From pooled regions to encoded tokens (TSP-RCNN)."""

import math

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import xyxy_to_cxcywh
from align_detr.layers.initialization import initialize_matrices
from align_detr.projects.tsp.encoder import token_set
from align_detr.projects.tsp.rcnn.rois import RoIs, pad_images
from align_detr.structures import Memory


class BoxPositionEncoding(nn.Module):
    """Sines and cosines of the eight numbers cx, cy, w, h, x0, y0, x1, y1 of a box, `embed_dim` / 8 features each.

    As DETR's encoding: times 2 pi, even features sines and odd ones cosines. Accounts of the paper name the first four
    numbers only; this follows the official code. Raises ConfigError unless `embed_dim` is a multiple of 16.
    """

    def __init__(self, *, embed_dim: int = 512, temperature: float = 10000.0) -> None:
        super().__init__()
        if embed_dim % 16:
            raise ConfigError(f"embed_dim of BoxPositionEncoding is {embed_dim}: set a multiple of 16")
        self.num_features = embed_dim // 8
        self.temperature = temperature

    def forward(self, boxes: Tensor) -> Tensor:
        """boxes (..., 4) xyxy, divided by the sides of their image -> (..., C) float32."""
        numbers = torch.cat([xyxy_to_cxcywh(boxes), boxes], dim=-1)[..., None]
        exponent = torch.arange(0, self.num_features, 2, device=boxes.device, dtype=torch.float32) / self.num_features
        phase = numbers * 2 * math.pi / self.temperature**exponent
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-3)


class RoITransformer(nn.Module):
    """Regions become tokens that attend to each other: LN(projected region + projected position), then the encoder,
    which adds the position itself to queries and keys (TSP, Sun et al. 2021, section 4.2).

    Regions have `in_channels` channels and `resolution` cells a side; matrices start from Xavier's uniform
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
        """pooled (N, C', r, r) of all images after one another, N the sum of `rois.counts`, and in a later stage what
        the one before returned -> (B, Q, C).
        """
        return self.encoder(self.tokens(pooled, rois, previous)).tokens

    def tokens(self, pooled: Tensor, rois: RoIs, previous: Tensor | None = None) -> Memory:
        """The encoder's input. A later stage takes (own tokens + `previous`) / sqrt(2), as the official code does."""
        position = self.position(rois.boxes / rois.sides)
        content = pad_images(self.projection(pooled.flatten(1)).split(rois.counts))
        tokens = self.norm(content + self.position_projection(position))
        if previous is not None:
            tokens = (tokens + previous) / math.sqrt(2)
        return token_set(tokens, position, rois.valid if rois.is_padded else None)
