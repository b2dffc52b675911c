"""Learned queries of the deformable detectors, which know where they look: a point or a box."""

import dataclasses

from torch import nn

from align_detr.modeling.queries import AnchorQueries, LearnedContentQueries
from align_detr.structures import Memory, Proposals, QueryPart, Targets


class PointQueries(LearnedContentQueries):
    """`num_queries` learned positions and contents, and the point of reference that a linear layer reads off each
    position (Deformable-DETR, Zhu et al. 2021, section 4.1).
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.reference_points = nn.Linear(embed_dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content and position (B, Q, C), reference (B, Q, 2) float32."""
        (part,) = super().forward(memory, proposals, targets)
        reference = self.reference_points(self.position.weight).float().sigmoid()
        return [dataclasses.replace(part, reference=reference.expand(len(part.content), -1, -1))]


class ContentAnchorQueries(AnchorQueries):
    """Learned anchor boxes with learned contents (DAB-Deformable-DETR, Liu et al. 2022, appendix)."""

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content (B, Q, C), reference (B, Q, 4) float32."""
        (part,) = super().forward(memory, proposals, targets)
        return [dataclasses.replace(part, content=self.content.weight.expand_as(part.content))]
