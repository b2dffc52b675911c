"""Features of interest: the few hundred points that become tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.projects.tsp.encoder import token_set
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import Memory


@dataclass
class FoIs:
    """The Q selected points of each image: `index` (B, Q) into its points; `valid` (B, Q) False for a point of the
    padding, or None where there is none; locations (B, Q, 2), strides (B, Q), levels (B, Q); `image_sizes[b]` =
    (height, width).
    """

    index: Tensor
    valid: Tensor | None
    locations: Tensor
    strides: Tensor
    levels: Tensor
    image_sizes: list[tuple[int, int]]

    @classmethod
    def at(cls, points: Points, index: Tensor, valid: Tensor | None = None) -> "FoIs":
        """The points of `index` (B, Q)."""
        places = (points.locations[index], points.strides[index], points.levels[index])
        return cls(index, valid, *places, image_sizes=points.image_sizes)


class FoISelection(nn.Module):
    """The `num_queries` points of the highest class score, over all levels, or all points of a smaller image.

    In training foreground points score (s + 1) / 2 instead of s (`boost`), so that objects are learned from before the
    classifier finds them, and of the points selected a random share is kept, drawn uniformly from `keep`, the same
    ranks for all images. The paper's text has been read as dropping 70 %, which is `keep=(0.3, 0.3)`; the
    official code keeps 70 to 100 %, and so does the default.

    Padding is not selected. `keep_padding=True` is the official behaviour: its points compete and attend, and an image
    depends on the batch it is in.
    """

    def __init__(
        self,
        *,
        num_queries: int = 700,
        keep: Sequence[float] = (0.7, 1.0),
        boost: bool = True,
        keep_padding: bool = False,
    ) -> None:
        super().__init__()
        low, high = keep
        if not 0 < low <= high <= 1:
            raise ConfigError(f"model.selection.keep is {list(keep)}, but must be two shares, 0 < low <= high <= 1")
        self.num_queries = num_queries
        self.keep = (float(low), float(high))
        self.boost = boost
        self.keep_padding = keep_padding

    def forward(self, points: Points, foreground: Tensor | None = None) -> FoIs:
        """`foreground` (B, P) bool is known in training only. Scores descend until the drop, which shuffles them."""
        scores = self.scores(points, foreground)
        top = scores.topk(min(self.num_queries, scores.shape[1]), dim=1)
        count = top.indices.shape[1]
        valid = None
        if not self.keep_padding and min(points.inside) < count:
            valid = top.values >= 0
        fois = FoIs.at(points, top.indices, valid)
        return self.drop(points, fois, draw_ranks(count, self.keep)) if self.training else fois

    @torch.no_grad()
    def scores(self, points: Points, foreground: Tensor | None = None) -> Tensor:
        """(B, P) highest probability of a class, float32; -1 for padding."""
        scores = points.logits.float().amax(-1).sigmoid()
        if foreground is not None and self.boost:
            scores = torch.where(foreground, (scores + 1) / 2, scores)
        return scores if self.keep_padding else scores.masked_fill(points.padding, -1.0)

    def drop(self, points: Points, fois: FoIs, ranks: Tensor) -> FoIs:
        """The FoIs at `ranks` (q,), the same of every image."""
        ranks = ranks.to(fois.index.device, non_blocking=True)
        return FoIs.at(points, fois.index[:, ranks], None if fois.valid is None else fois.valid[:, ranks])


def draw_ranks(count: int, keep: tuple[float, float]) -> Tensor:
    """A random floor(count (high - (high - low) u)), at least 1, of `count` ranks in random order, (q,) int64 on the
    host; u is uniform in [0, 1).

    From torch's global generator of the host: the length of what is selected then needs nothing from the device.
    """
    low, high = keep
    kept = int(count * (high - (high - low) * float(torch.rand((), dtype=torch.float64))))
    return torch.randperm(count)[: max(1, kept)]


class FoIEncoding(nn.Module):
    """Tokens of the FoIs: their features, projected and normed; their sine position plus a learned vector of their
    level, which the encoder adds to queries and keys (TSP, section 4.2).

    The vectors start at one for every level, as in the official code.
    """

    def __init__(self, *, in_channels: int = 512, embed_dim: int = 512, num_levels: int = 5) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channels, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.level_embed = nn.Parameter(torch.ones(num_levels, embed_dim))

    def forward(self, points: Points, fois: FoIs) -> Memory:
        """Tokens and positions (B, Q, C)."""
        index = fois.index
        features = points.features.gather(2, index[:, None].expand(-1, points.features.shape[1], -1)).transpose(1, 2)
        position = points.position.gather(1, index[..., None].expand(-1, -1, points.position.shape[-1]))
        return token_set(self.norm(self.projection(features)), position + self.level_embed[fois.levels], fois.valid)
