"""Where the decoder's queries come from: (memory, proposals or None, targets in training) -> parts."""

from torch import nn

from align_detr.structures import Memory, Proposals, QueryPart, Targets


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
        return [QueryPart(name="main", content=position.new_zeros(position.shape), position=position)]


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
        return [QueryPart(name="main", content=content, position=position)]
