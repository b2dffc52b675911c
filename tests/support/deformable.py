"""Deformable detectors of any size, from the parts of the library."""

from collections.abc import Mapping

import torch
from torch import nn

from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.backbone import build_small_resnet
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.deformable import DeformableDecoderLayer, DeformableEncoder, DeformableEncoderLayer
from align_detr.modeling.head import LayerwiseHead, SharedHead
from align_detr.modeling.losses import GIoULoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.meta_arch import DeformableDETR
from align_detr.modeling.neck import MultiScaleNeck
from align_detr.modeling.postprocess import TopKPostprocess
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

    def __init__(self, *, neck, encoder, queries, decoder, head, proposals=None) -> None:  # noqa: ANN001
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


def tiny_detector(kind: str, *, num_queries: int = 8, num_classes: int = 3) -> DeformableDETR:
    """A detector of 16 channels with random weights, none of which is zero, so that nothing hides."""
    torch.manual_seed(0)
    parts = build_parts(
        kind,
        in_channels=dict(res3=12, res4=16, res5=24),
        embed_dim=16,
        num_heads=2,
        ffn_dim=24,
        enc_layers=1,
        dec_layers=2,
        num_queries=num_queries,
        num_one_to_one=num_queries // 2,
        num_classes=num_classes,
        num_points=2,
        num_groups=4,
    )
    for parameter in parts.parameters():
        if parameter.dim() == 1 or not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    hybrid = kind == "hybrid"
    return DeformableDETR(
        backbone=build_small_resnet(
            channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1), out_features=["res3", "res4", "res5"], norm="FrozenBN"
        ),
        neck=parts.neck,
        encoder=parts.encoder,
        proposals=parts.proposals,
        queries=parts.queries,
        decoder=parts.decoder,
        head=parts.head,
        criterion=SetCriterion(
            matcher=HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)]),
            losses=[SigmoidFocalLoss(weight=2.0), L1Loss(), GIoULoss()],
            set_weights={"o2m": 1.0} if hybrid else None,
        ),
        postprocess=TopKPostprocess(num_detections=10),
    )
