"""Sources of denoising queries of any kind, what they are given, and a small detector with them."""

import torch
from torch import nn

from align_detr.modeling.conditional import ConditionalDecoderLayer, FirstConditionalDecoderLayer
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.head import SharedHead
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.meta_arch import DETR
from align_detr.modeling.queries import AnchorQueries, DenoisingSource
from align_detr.modeling.query_position import AnchorPosition
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.structures import Memory, Targets
from support.inputs import tiny_detr

DIM, CLASSES = 16, 3


def source_of(kind: type, **options: object) -> DenoisingSource:
    """Four learned boxes behind denoising queries of this kind."""
    torch.manual_seed(0)
    main = AnchorQueries(num_queries=4, embed_dim=DIM)
    return kind(main=main, num_classes=CLASSES, embed_dim=DIM, **options)


def some_targets(*counts: int) -> Targets:
    """Random objects that lie inside their image."""
    longest = max([1, *counts])
    generator = torch.Generator().manual_seed(1)
    return Targets(
        labels=torch.randint(CLASSES, (len(counts), longest), generator=generator),
        boxes=torch.rand(len(counts), longest, 4, generator=generator) * 0.2 + torch.tensor([0.4, 0.4, 0.3, 0.3]),
        counts=list(counts),
    )


def memory_of(images: int) -> Memory:
    """One token an image, which says nothing."""
    tokens = torch.zeros(images, 1, DIM)
    return Memory(tokens=tokens, position=tokens, padding=None, shapes=[(1, 1)], valid_sizes=[[(1, 1)] * images])


def tiny_denoising_detr(kind: type, align: bool = False) -> DETR:
    """A DAB-DETR of 16 channels with denoising."""
    model = tiny_detr(num_classes=CLASSES)
    sizes = dict(embed_dim=DIM, num_heads=2, ffn_dim=32, dropout=0.0, activation=nn.PReLU())
    model.queries = source_of(kind)
    model.decoder = Decoder(
        layer=ConditionalDecoderLayer(**sizes),
        first_layer=FirstConditionalDecoderLayer(**sizes),
        num_layers=2,
        norm=nn.LayerNorm(DIM),
        query_position=AnchorPosition(embed_dim=DIM, temperature=10000),
        refine=True,
        look_forward_twice=True,
    )
    model.head = SharedHead(num_classes=CLASSES, embed_dim=DIM)
    model.criterion = SetCriterion(
        matcher=HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)]),
        losses=[IABCELoss() if align else SigmoidFocalLoss(), L1Loss(), GIoULoss(eps=1e-6)],
        weighting=PrimeSampleWeighting() if align else None,
    )
    return model
