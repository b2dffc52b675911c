"""Features of interest (FoIs): the few hundred points that become tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align_detr.projects.tsp.checks import check_range_of_shares
from align_detr.projects.tsp.encoder import token_set
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import Memory, Sizes


@dataclass
class FoIs:
    """The Q selected points of each image.

    index (B, Q) into the points; `valid` (B, Q), False in padding, or None where no selected point is padding;
    locations (B, Q, 2); strides (B, Q); levels (B, Q); `image_sizes[b]` = (height, width).
    """

    index: Tensor
    valid: Tensor | None
    locations: Tensor
    strides: Tensor
    levels: Tensor
    image_sizes: Sizes

    @classmethod
    def at(cls, points: Points, index: Tensor, valid: Tensor | None = None) -> "FoIs":
        """Return the points at `index` (B, Q)."""
        return cls(
            index=index,
            valid=valid,
            locations=points.locations[index],
            strides=points.strides[index],
            levels=points.levels[index],
            image_sizes=points.image_sizes,
        )


class FoISelection(nn.Module):
    """The `num_queries` points of highest class score over all levels, or all points of a smaller image.

    In training, foreground points score (s + 1) / 2 instead of s (`boost`), so that objects train the model before the
    classifier finds them. Then a random share of the selected points is kept, drawn uniformly from `keep`, with the
    same ranks for all images. The default follows the official code, which keeps 70 to 100 %; `keep=(0.3, 0.3)` is the
    other reading of the paper, which drops 70 %.

    Points of the padding are not selected. With `keep_padding=True` they are, and attend, as in the official code: the
    detections of an image then depend on its batch.
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
        self.num_queries = num_queries
        self.keep = check_range_of_shares(keep, "model.selection.keep")
        self.boost = boost
        self.keep_padding = keep_padding

    def forward(self, points: Points, foreground: Tensor | None = None) -> FoIs:
        """Select the points of each image; `foreground` (B, P) bool is known in training only.

        Scores descend, except in training, where the random drop shuffles the points.
        """
        scores = self.scores(points, foreground)
        top = scores.topk(torch.sym_min(self.num_queries, scores.shape[1]), dim=1)
        count = top.indices.shape[1]
        valid = None
        if not self.keep_padding and (isinstance(points.image_sizes, Tensor) or min(points.inside) < count):
            valid = top.values >= 0
        fois = FoIs.at(points, top.indices, valid)
        return self.drop(points, fois, draw_ranks(count, self.keep)) if self.training else fois

    @torch.no_grad()
    def scores(self, points: Points, foreground: Tensor | None = None) -> Tensor:
        """Return the highest class probability of each point, (B, P) float32; -1 for padding."""
        scores = points.logits.float().amax(-1).sigmoid()
        if foreground is not None and self.boost:
            scores = torch.where(foreground, (scores + 1) / 2, scores)
        return scores if self.keep_padding else scores.masked_fill(points.padding, -1.0)

    def drop(self, points: Points, fois: FoIs, ranks: Tensor) -> FoIs:
        """Return the FoIs at `ranks` (q,), which are the same for every image."""
        ranks = ranks.to(fois.index.device, non_blocking=True)
        return FoIs.at(points, fois.index[:, ranks], None if fois.valid is None else fois.valid[:, ranks])


def draw_ranks(count: int, keep: tuple[float, float]) -> Tensor:
    """Draw floor(count (high - (high - low) u)), at least 1, of `count` ranks in random order; u is uniform in [0, 1).

    The ranks, (q,) int64, come from torch's global generator on the host, so that their number needs no copy from the
    device.
    """
    low, high = keep
    kept = int(count * (high - (high - low) * float(torch.rand((), dtype=torch.float64))))
    return torch.randperm(count)[: max(1, kept)]


class FoIEncoding(nn.Module):
    """Tokens and positions of the FoIs (TSP, section 4.2).

    A token is the projected and normed feature of a point. Its position, which the encoder adds to queries and keys, is
    the sine encoding plus a learned vector per level. The vectors start at 1, as in the official code.
    """

    def __init__(self, *, in_channels: int = 512, embed_dim: int = 512, num_levels: int = 5) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channels, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.level_embed = nn.Parameter(torch.ones(num_levels, embed_dim))

    def forward(self, points: Points, fois: FoIs) -> Memory:
        """Return tokens and positions, (B, Q, C) each."""
        index = fois.index
        features = points.features.gather(2, index[:, None].expand(-1, points.features.shape[1], -1)).transpose(1, 2)
        position = points.position.gather(1, index[..., None].expand(-1, -1, points.position.shape[-1]))
        return token_set(self.norm(self.projection(features)), position + self.level_embed[fois.levels], fois.valid)
