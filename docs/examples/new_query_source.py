"""A source of queries: fixed boxes on a grid, with learned contents."""

import torch
from detectron2.config import LazyCall as L
from torch import nn

from align_detr import model_zoo
from align_detr.structures import QueryPart


class GridQueries(nn.Module):
    """Boxes of one size on a grid of `per_side` x `per_side` centres, the same for every image."""

    def __init__(self, *, per_side: int = 5, side: float = 0.2, embed_dim: int = 256) -> None:
        super().__init__()
        steps = (torch.arange(per_side) + 0.5) / per_side
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        boxes = torch.stack([x, y, torch.full_like(x, side), torch.full_like(x, side)], dim=-1)
        self.register_buffer("boxes", boxes.flatten(0, 1), persistent=False)
        self.content = nn.Embedding(per_side**2, embed_dim)

    def forward(self, memory, proposals=None, targets=None):
        """Return one part, `main`: content (B, Q, C) and reference (B, Q, 4), normalised cxcywh."""
        images = len(memory.tokens)
        content, boxes = (x.expand(images, -1, -1) for x in (self.content.weight, self.boxes))
        return [QueryPart(name="main", content=content, reference=boxes)]


model = model_zoo.get_config("quickstart/digits_dab_detr.py").model
model.queries = L(GridQueries)(per_side=5, side=0.2, embed_dim=128)
