"""Learned queries, the same for every image: positions, points or boxes, with or without learned contents."""

import dataclasses

import torch
from torch import nn

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
        """One part, `main`: content and position (B, Q, C)."""
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
        """One part, `main`: content and position (B, Q, C)."""
        position, content = (
            table.weight.expand(memory.tokens.shape[0], -1, -1) for table in (self.position, self.content)
        )
        return [QueryPart(name=MAIN, content=content, position=position)]


class ConditionalQueries(LearnedQueries):
    """Learned positions with content zero, and the reference point that a perceptron reads off each position
    (Conditional-DETR, Meng et al. 2021, section 3.3).
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.reference = MLP(embed_dim, embed_dim, 2, 2)
        initialize_matrices(self.reference)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content and position (B, Q, C), reference (B, Q, 2) float32."""
        (part,) = super().forward(memory, proposals, targets)
        reference = self.reference(self.position.weight).float().sigmoid()
        return [dataclasses.replace(part, reference=reference.expand(len(part.content), -1, -1))]


class GroupQueries(ConditionalQueries):
    """`groups` sets of `num_queries` such queries in training, each matched on its own and blind to the others, so that
    an object has that many positives; evaluation uses the first set (Group-DETR, Chen et al. 2022, section 3).

    detrex's port folds the groups into the batch and then mixes them up in self-attention when it trains; the paper's
    separate groups are what is here.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, groups: int = 11) -> None:
        super().__init__(num_queries=groups * num_queries, embed_dim=embed_dim)
        self.groups = groups

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: with targets all groups after one another, without them the first."""
        (part,) = super().forward(memory, proposals, targets)
        if targets is not None:
            return [dataclasses.replace(part, groups=self.groups)]
        first = slice(part.content.shape[1] // self.groups)
        return [
            dataclasses.replace(
                part,
                content=part.content[:, first],
                position=part.position[:, first],
                reference=part.reference[:, first],
            )
        ]


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
        """One part, `main`: content (B, Q, C), reference (B, Q, 4) float32."""
        anchors = self.anchor.weight.float().sigmoid().expand(memory.tokens.shape[0], -1, -1)
        content = anchors.new_zeros(*anchors.shape[:2], self.embed_dim)
        return [QueryPart(name=MAIN, content=content, reference=anchors)]


class PatternAnchorQueries(AnchorQueries):
    """Each anchor once with each of `num_patterns` learned contents, pattern by pattern, so that several objects may
    share a place (Anchor-DETR, Wang et al. 2022, section 3.2, as taken over by DAB-DETR).
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, num_patterns: int = 3) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.pattern = nn.Embedding(num_patterns, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`, of patterns x anchors queries: content (B, Q, C), reference (B, Q, 4) float32."""
        (part,) = super().forward(memory, proposals, targets)
        images, num_queries, _ = part.reference.shape
        patterns = self.pattern.weight.repeat_interleave(num_queries, dim=0).expand(images, -1, -1)
        return [
            dataclasses.replace(
                part, content=patterns, reference=part.reference.repeat(1, self.pattern.num_embeddings, 1)
            )
        ]


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
