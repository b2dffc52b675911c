"""Queries that are anchor points."""

from torch import nn

from align_detr.projects.anchor_detr.neck import AnchorMemory
from align_detr.structures import MAIN, Proposals, QueryPart, Targets


class AnchorPointQueries(nn.Module):
    """`num_queries` learned anchor points with `num_patterns` learned patterns each (Anchor-DETR, Wang et al. 2022).

    The num_patterns x num_queries queries, all points of the first pattern first, let several objects share a point.
    Points start uniformly in the image. They are plain coordinates without a sigmoid, so training may move them out of
    [0, 1]; boxes then start at the border.
    """

    def __init__(self, *, num_queries: int = 300, num_patterns: int = 3, embed_dim: int = 256) -> None:
        super().__init__()
        self.point = nn.Embedding(num_queries, 2)
        self.pattern = nn.Embedding(num_patterns, embed_dim)
        nn.init.uniform_(self.point.weight)

    def forward(
        self, memory: AnchorMemory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), position from the memory's encoding, reference (B, Q, 2)."""
        batch, patterns, points = memory.tokens.shape[0], self.pattern.num_embeddings, self.point.num_embeddings
        position = memory.encoding.encode_queries(self.point.weight)
        return [
            QueryPart(
                name=MAIN,
                content=self.pattern.weight.repeat_interleave(points, dim=0).expand(batch, -1, -1),
                position=position.repeat(patterns, 1).expand(batch, -1, -1),
                reference=self.point.weight.repeat(patterns, 1).expand(batch, -1, -1),
            )
        ]
