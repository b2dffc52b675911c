"""Deformable detectors of any size, from the parts of the library."""

from collections.abc import Mapping

from torch import nn

from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.deformable import DeformableDecoderLayer, DeformableEncoder, DeformableEncoderLayer
from align_detr.modeling.head import LayerwiseHead, SharedHead
from align_detr.modeling.neck import MultiScaleNeck
from align_detr.modeling.proposals import ClassProposals, ObjectProposals
from align_detr.modeling.queries import (
    ContentAnchorQueries,
    EncodedMixedSelectionQueries,
    EncodedProposalQueries,
    HybridQueries,
    MixedSelectionQueries,
    PointQueries,
    ProposalQueries,
)
from align_detr.modeling.query_position import ReferencePosition, ScaledReferencePosition
from align_detr.structures import Memory, Predictions, Targets

KINDS = ("plain", "refine", "two_stage", "dab", "dab_two_stage", "hybrid", "dino")


class Parts(nn.Module):
    """A detector beyond its backbone."""

    def __init__(self, *, neck, encoder, queries, decoder, head, proposals=None) -> None:
        super().__init__()
        self.neck, self.encoder, self.queries, self.decoder, self.head = neck, encoder, queries, decoder, head
        self.proposals = proposals

    def predict(self, memory: Memory, targets: Targets | None = None) -> dict[str, Predictions]:
        """As `DETR.predict`."""
        proposals = None if self.proposals is None else self.proposals(memory)
        sets = self.decoder(self.queries(memory, proposals, targets), memory, self.head)
        return sets if proposals is None else {**sets, "enc": proposals.predictions}


def build_parts(
    kind: str,
    *,
    in_channels: Mapping[str, int],
    embed_dim: int,
    num_heads: int,
    ffn_dim: int,
    enc_layers: int,
    dec_layers: int,
    num_queries: int,
    num_classes: int,
    num_levels: int = 4,
    num_points: int = 4,
    num_groups: int = 8,
    num_one_to_one: int = 0,
    eps: float = 1e-3,
    offset: float = -0.5,
    mixed_selection: bool = True,
    look_forward_twice: bool = True,
) -> Parts:
    """Build a detector of one of KINDS; the last two options are those of the hybrid one, which matches 3 copies."""
    layer = dict(
        embed_dim=embed_dim,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        dropout=0.0,
        num_levels=num_levels,
        num_points=num_points,
    )
    queries = dict(num_queries=num_queries, embed_dim=embed_dim)
    proposals = dict(**queries, num_classes=num_classes)
    head = dict(num_classes=num_classes, embed_dim=embed_dim, eps=eps)
    sources = dict(
        plain=lambda: PointQueries(**queries),
        refine=lambda: PointQueries(**queries),
        two_stage=lambda: EncodedProposalQueries(embed_dim=embed_dim),
        dab=lambda: ContentAnchorQueries(**queries),
        dab_two_stage=lambda: ProposalQueries(),
        hybrid=lambda: HybridQueries(
            source=EncodedMixedSelectionQueries(**queries)
            if mixed_selection
            else EncodedProposalQueries(embed_dim=embed_dim),
            num_one_to_one=num_one_to_one,
            copies=3,
        ),
        dino=lambda: MixedSelectionQueries(**queries),
    )
    stages = dict(two_stage=ObjectProposals, hybrid=ObjectProposals, dab_two_stage=ClassProposals, dino=ClassProposals)
    positions = dict(dab=ScaledReferencePosition, dab_two_stage=ScaledReferencePosition, dino=ReferencePosition)
    return Parts(
        neck=MultiScaleNeck(
            in_channels=in_channels,
            embed_dim=embed_dim,
            position=SinePositionEncoding(num_features=embed_dim // 2, offset=offset),
            num_levels=num_levels,
            num_groups=num_groups,
        ),
        encoder=DeformableEncoder(layer=DeformableEncoderLayer(**layer), num_layers=enc_layers),
        queries=sources[kind](),
        decoder=Decoder(
            layer=DeformableDecoderLayer(**layer),
            num_layers=dec_layers,
            norm=nn.LayerNorm(embed_dim) if kind == "dino" else None,
            query_position=positions[kind](embed_dim=embed_dim) if kind in positions else None,
            refine=kind != "plain",
            look_forward_twice=kind == "dino" or (kind == "hybrid" and look_forward_twice),
        ),
        head=SharedHead(**head) if kind == "plain" else LayerwiseHead(num_layers=dec_layers, **head),
        proposals=stages[kind](**proposals) if kind in stages else None,
    )
