"""TSP-FCOS and TSP-RCNN (Sun et al. 2021): set prediction by a transformer encoder alone, over points or boxes that a
convolutional detector proposes. Importing this package registers the detectors in detectron2, and the names of weights
that were trained with the official code.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.tsp.backbone import BGRStem, ExtraLevels, build_msra_resnet
from align_detr.projects.tsp.checkpoint import (
    convert_official_tsp_fcos,
    convert_official_tsp_rcnn,
    is_official_tsp_fcos,
    is_official_tsp_rcnn,
)
from align_detr.projects.tsp.fcos.assign import PointAssigner, SharedPointAssigner
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.fcos.head import PointHead
from align_detr.projects.tsp.fcos.losses import (
    CenternessLoss,
    DenseFocalLoss,
    DownweightedFocalLoss,
    PointCriterion,
    PointGIoULoss,
    RestrictedFocalLoss,
)
from align_detr.projects.tsp.fcos.matching import CenternessClassCost, PointOwnerMatcher, PointGIoUCost
from align_detr.projects.tsp.fcos.points import PointTowers
from align_detr.projects.tsp.fcos.postprocess import PointPostprocess
from align_detr.projects.tsp.fcos.selection import FoIEncoding, FoISelection
from align_detr.projects.tsp.hybrid_optimizer import HybridOptimizer, get_hybrid_groups
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.losses import (
    BackgroundFocalLoss,
    DeltaL1Loss,
    ProposalOwnerMatcher,
    ProposalCriterion,
)
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes, ClassBoxes, SigmoidClassifier, SoftmaxClassifier
from align_detr.projects.tsp.rcnn.roi_heads import ClassWiseNMS, RoIStage, TSPROIHeads
from align_detr.projects.tsp.rcnn.rpn import TowerRPNHead
from align_detr.projects.tsp.rcnn.sampling import ProposalSampler
from align_detr.projects.tsp.rcnn.transformer import RoITransformer

register_release(is_official_tsp_fcos, lambda state, _: convert_official_tsp_fcos(state))
register_release(is_official_tsp_rcnn, lambda state, _: convert_official_tsp_rcnn(state))

__all__ = [
    "TSPFCOS",
    "TSPRCNN",
    "AgnosticBoxes",
    "BGRStem",
    "BackgroundFocalLoss",
    "CenternessClassCost",
    "CenternessLoss",
    "ClassBoxes",
    "ClassWiseNMS",
    "DeltaL1Loss",
    "DenseFocalLoss",
    "DownweightedFocalLoss",
    "ExtraLevels",
    "FoIEncoding",
    "FoISelection",
    "HybridOptimizer",
    "ProposalOwnerMatcher",
    "PointOwnerMatcher",
    "PointAssigner",
    "PointCriterion",
    "PointGIoUCost",
    "PointGIoULoss",
    "PointHead",
    "PointPostprocess",
    "PointTowers",
    "ProposalCriterion",
    "ProposalSampler",
    "RestrictedFocalLoss",
    "RoIStage",
    "RoITransformer",
    "SharedPointAssigner",
    "SigmoidClassifier",
    "SoftmaxClassifier",
    "TSPROIHeads",
    "TowerRPNHead",
    "build_msra_resnet",
    "get_hybrid_groups",
]
