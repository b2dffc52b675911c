"""Sources of the decoder's queries: (memory, proposals or None, targets in training) -> query parts."""

from align_detr.modeling.queries.denoising import ContrastiveDenoisingQueries, DenoisingQueries, DenoisingSource
from align_detr.modeling.queries.from_proposals import (
    EncodedMixedSelectionQueries,
    EncodedProposalQueries,
    GroupMixedSelectionQueries,
    HybridQueries,
    MixedSelectionQueries,
    ProposalQueries,
)
from align_detr.modeling.queries.learned import (
    AnchorQueries,
    ConditionalQueries,
    ContentAnchorQueries,
    GroupQueries,
    LearnedContentQueries,
    LearnedQueries,
    PatternAnchorQueries,
    PointQueries,
)

__all__ = [
    "AnchorQueries",
    "ConditionalQueries",
    "ContentAnchorQueries",
    "ContrastiveDenoisingQueries",
    "DenoisingQueries",
    "DenoisingSource",
    "EncodedMixedSelectionQueries",
    "EncodedProposalQueries",
    "GroupMixedSelectionQueries",
    "GroupQueries",
    "HybridQueries",
    "LearnedContentQueries",
    "LearnedQueries",
    "MixedSelectionQueries",
    "PatternAnchorQueries",
    "PointQueries",
    "ProposalQueries",
]
