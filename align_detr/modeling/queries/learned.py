"""Learned queries, the same for every image: positions, points or boxes, with or without learned contents."""

import dataclasses

import torch
from torch import Tensor, nn

from align_detr.layers.boxes import inverse_sigmoid
from align_detr.layers.initialization import initialize_matrices
from align_detr.layers.mlp import MLP
from align_detr.structures import MAIN, Memory, Proposals, QueryPart, Targets


class LearnedQueries(nn.Module):
    """`num_queries` learned positions with content zero, the same for every image (DETR, section 3.2)."""

    def __init__(self, *, num_queries: int = 100, embed_dim: int = 256) -> None:
        super().__init__()
        self.position = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content and position (B, Q, C)."""
        position = self.position.weight.expand(memory.tokens.shape[0], -1, -1)
        return [QueryPart(name=MAIN, content=position.new_zeros(position.shape), position=position)]


class LearnedContentQueries(LearnedQueries):
    """`num_queries` learned positions and learned contents, the same for every image (Deformable-DETR, section 4.1)."""

    def __init__(self, *, num_queries: int = 100, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content and position (B, Q, C)."""
        position, content = (
            table.weight.expand(memory.tokens.shape[0], -1, -1) for table in (self.position, self.content)
        )
        return [QueryPart(name=MAIN, content=content, position=position)]


class ConditionalQueries(LearnedQueries):
    """Learned positions with content zero, and a reference point that an MLP computes from each position
    (Conditional-DETR, Meng et al. 2021, section 3.3).
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.reference = MLP(embed_dim, embed_dim, 2, 2)
        initialize_matrices(self.reference)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content and position (B, Q, C), reference (B, Q, 2) float32."""
        (part,) = super().forward(memory, proposals, targets)
        reference = self.reference(self.position.weight).float().sigmoid()
        return [dataclasses.replace(part, reference=reference.expand(part.content.shape[0], -1, -1))]


class GroupQueries(ConditionalQueries):
    """`groups` query groups of `num_queries` conditional queries in training, each matched separately and blind to the
    others, so that an object has that many positives; evaluation uses the first group (Group-DETR, Chen et al. 2022,
    section 3).

    detrex's port folds the groups into the batch and then mixes them in self-attention in training; here the groups are
    separate, as in the paper.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, groups: int = 11) -> None:
        super().__init__(num_queries=groups * num_queries, embed_dim=embed_dim)
        self.groups = groups

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: with targets all groups, concatenated; without them the first."""
        (part,) = super().forward(memory, proposals, targets)
        if targets is not None:
            return [dataclasses.replace(part, groups=self.groups)]
        return [queries_of(part, slice(part.content.shape[1] // self.groups))]


class AnchorQueries(nn.Module):
    """`num_queries` learned anchor boxes with content zero, the same for every image (DAB-DETR, Liu et al. 2022,
    section 4).

    `anchor` holds logits of normalised cxcywh: centres spread evenly over the image, logits of the sides from a normal
    distribution. The released code means to keep such centres fixed, but trains them; so do we.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.anchor = nn.Embedding(num_queries, 4)
        with torch.no_grad():
            self.anchor.weight[:, :2] = inverse_sigmoid(torch.rand(num_queries, 2), eps=1e-3)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), reference (B, Q, 4) float32."""
        anchors = self.anchors(memory)
        content = self.anchor.weight.new_zeros(*anchors.shape[:2], self.embed_dim)  # of the type of the weights
        return [QueryPart(name=MAIN, content=content, reference=anchors)]

    def anchors(self, memory: Memory) -> Tensor:
        """Return the anchor boxes for every image, (B, Q, 4) normalised cxcywh, float32."""
        return self.anchor.weight.float().sigmoid().expand(memory.tokens.shape[0], -1, -1)


class PatternAnchorQueries(AnchorQueries):
    """Each anchor once with each of `num_patterns` learned contents, pattern by pattern, so that several objects may
    share a position (Anchor-DETR, Wang et al. 2022, section 3.2, as adopted by DAB-DETR).
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, num_patterns: int = 3) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.pattern = nn.Embedding(num_patterns, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`, of patterns x anchors queries: content (B, Q, C), reference (B, Q, 4) float32."""
        anchors = self.anchors(memory)
        images, num_queries, _ = anchors.shape
        patterns = self.pattern.weight.repeat_interleave(num_queries, dim=0).expand(images, -1, -1)
        reference = anchors.repeat(1, self.pattern.num_embeddings, 1)
        return [QueryPart(name=MAIN, content=patterns, reference=reference)]


class PointQueries(LearnedContentQueries):
    """`num_queries` learned positions and contents, and a reference point that a linear layer computes from each
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
        """Return one part, `main`: content and position (B, Q, C), reference (B, Q, 2) float32."""
        (part,) = super().forward(memory, proposals, targets)
        reference = self.reference_points(self.position.weight).float().sigmoid()
        return [dataclasses.replace(part, reference=reference.expand(part.content.shape[0], -1, -1))]


class ContentAnchorQueries(AnchorQueries):
    """Learned anchor boxes with learned contents (DAB-Deformable-DETR, Liu et al. 2022, appendix)."""

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), reference (B, Q, 4) float32."""
        (part,) = super().forward(memory, proposals, targets)
        return [dataclasses.replace(part, content=self.content.weight.expand_as(part.content))]


def queries_of(part: QueryPart, which: slice) -> QueryPart:
    """Return the part with some of its queries only."""
    return dataclasses.replace(
        part,
        content=part.content[:, which],
        position=None if part.position is None else part.position[:, which],
        reference=None if part.reference is None else part.reference[:, which],
        valid=None if part.valid is None else part.valid[:, which],
    )
