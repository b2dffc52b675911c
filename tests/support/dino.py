"""DINO and Group-DINO of a few channels."""

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.meta_arch import DINO, GroupDINO
from align_detr.modeling.queries import ContrastiveDenoisingQueries, GroupMixedSelectionQueries
from align_detr.modeling.weighting import PrimeSampleWeighting
from support.deformable import tiny_detector

DIM, QUERIES, CLASSES, GROUPS = 16, 8, 3, 3


def tiny_dino(kind: type[DINO] = DINO, *, align: bool = False, num_queries: int = QUERIES) -> DINO:
    """A DINO of 16 channels with random weights; `align` gives it Align-DETR's criterion with k = 3."""
    model = tiny_detector("dino", num_queries=num_queries, num_classes=CLASSES)
    main = model.queries
    if kind is GroupDINO:
        main = GroupMixedSelectionQueries(num_queries=num_queries, embed_dim=DIM, groups=GROUPS)
    queries = ContrastiveDenoisingQueries(main=main, num_classes=CLASSES, embed_dim=DIM, dn_number=6)
    parts = ("backbone", "neck", "encoder", "proposals", "decoder", "head", "criterion", "postprocess")
    model = kind(queries=queries, **{name: getattr(model, name) for name in parts})
    if align:
        model.criterion = SetCriterion(
            matcher=HungarianMatcher(
                costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)],
                copies={"main": [3, 1], "enc": 3},
            ),
            losses=[IABCELoss(), L1Loss(), GIoULoss()],
            weighting=PrimeSampleWeighting(),
        )
    return model
