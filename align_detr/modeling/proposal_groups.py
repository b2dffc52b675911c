"""Several sets of queries at the same proposals (Group-DETR on DINO)."""

from align_detr.checks import check_count
from align_detr.modeling.proposal_queries import MixedSelectionQueries, needed
from align_detr.structures import MAIN, Memory, Proposals, QueryPart, Targets


class GroupMixedSelectionQueries(MixedSelectionQueries):
    """`groups` sets of `num_queries` learned contents in training, each matched on its own and blind to the others, so
    that an object has that many positives; evaluation uses the first set (Group-DETR, Chen et al. 2022, section 3, on
    DINO).

    All groups stand at the same proposals: the paper defines groups as further sets of decoder queries and leaves open
    what they are in a two-stage detector. So the first stage is DINO's, in training as in evaluation, and the groups
    differ in their contents alone. Denoising queries, of which the paper does not speak here, see the queries of all
    groups, and none of these sees them: that too is a reading of ours.
    """

    def __init__(self, *, num_queries: int = 900, embed_dim: int = 256, groups: int = 3) -> None:
        check_count(groups, "model.queries.main.groups", remedy="for one set use MixedSelectionQueries")
        super().__init__(num_queries=groups * num_queries, embed_dim=embed_dim)
        self.groups = groups

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`, content (B, Q, C) and reference (B, Q, 4): with targets Q = groups x num_queries, group by
        group, without them the first group alone.
        """
        per_group = len(self.content.weight) // self.groups
        proposals = needed(proposals, self, per_group, "model.queries.main.num_queries")
        groups = 1 if targets is None else self.groups
        valid = None if proposals.valid is None else proposals.valid.repeat(1, groups)
        reference = proposals.reference.repeat(1, groups, 1)
        content = self.content.weight[: groups * per_group].expand(len(reference), -1, -1)
        return [QueryPart(name=MAIN, content=content, reference=reference, groups=groups, valid=valid)]
