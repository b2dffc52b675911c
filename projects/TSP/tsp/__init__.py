"""TSP-FCOS and TSP-RCNN (Sun et al. 2021): set prediction by a transformer encoder without a decoder.

The tokens are points (`fcos/`) or boxes (`rcnn/`) that a convolutional detector proposes; the files beside the two
folders serve both. Importing this package registers the detectors in detectron2, and the names of weights that were
trained with the official code. `__all__` lists every class, and the functions that configs name.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.checkpoint.key_map import resnet_depth
from align_detr.projects.tsp.backbone import BGRStem, ExtraLevels, build_msra_resnet
from align_detr.projects.tsp.checkpoint import (
    convert_official_tsp_fcos,
    convert_official_tsp_rcnn,
    is_official_tsp_fcos,
    is_official_tsp_rcnn,
)
from align_detr.projects.tsp.distillation import DistilledDETR, TaughtPredictions, Teacher, TeacherMatcher
from align_detr.projects.tsp.fcos.assign import Assignment, PointAssigner, SharedPointAssigner
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.fcos.head import AssignedPredictions, PointHead, PointPredictions
from align_detr.projects.tsp.fcos.losses import (
    CenternessLoss,
    DenseFocalLoss,
    DownweightedFocalLoss,
    PointCriterion,
    PointGIoULoss,
    RestrictedFocalLoss,
)
from align_detr.projects.tsp.fcos.matching import CenternessClassCost, PointGIoUCost, PointOwnerMatcher
from align_detr.projects.tsp.fcos.points import Points, PointTowers
from align_detr.projects.tsp.fcos.postprocess import PointPostprocess
from align_detr.projects.tsp.fcos.selection import FoIEncoding, FoIs, FoISelection
from align_detr.projects.tsp.hybrid_optimizer import HybridOptimizer, get_hybrid_groups
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.losses import (
    BackgroundFocalLoss,
    DeltaL1Loss,
    ProposalCriterion,
    ProposalOwnerMatcher,
)
from align_detr.projects.tsp.rcnn.padded import PaddedRoIs
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes, ClassBoxes, SigmoidClassifier, SoftmaxClassifier
from align_detr.projects.tsp.rcnn.roi_heads import ClassWiseNMS, RoIStage, TSPROIHeads
from align_detr.projects.tsp.rcnn.rois import BoxCoder, RoIOutputs, RoIPredictions, RoIs
from align_detr.projects.tsp.rcnn.rpn import LevelNormTower, TowerRPNHead
from align_detr.projects.tsp.rcnn.sampling import ProposalSampler
from align_detr.projects.tsp.rcnn.transformer import BoxPositionEncoding, RoITransformer

register_release(
    is_official_tsp_fcos,
    lambda state, _: convert_official_tsp_fcos(state),
    name="the official TSP-FCOS",
    config=lambda state: f"TSP/tsp_fcos_{resnet_depth(state)}_36ep.py",
)
register_release(
    is_official_tsp_rcnn,
    lambda state, _: convert_official_tsp_rcnn(state),
    name="the official TSP-RCNN",
    config=lambda state: f"TSP/tsp_rcnn_{resnet_depth(state)}_36ep.py",
)

__all__ = [
    "TSPFCOS",
    "TSPRCNN",
    "AgnosticBoxes",
    "AssignedPredictions",
    "Assignment",
    "BGRStem",
    "BackgroundFocalLoss",
    "BoxCoder",
    "BoxPositionEncoding",
    "CenternessClassCost",
    "CenternessLoss",
    "ClassBoxes",
    "ClassWiseNMS",
    "DeltaL1Loss",
    "DenseFocalLoss",
    "DistilledDETR",
    "DownweightedFocalLoss",
    "ExtraLevels",
    "FoIEncoding",
    "FoISelection",
    "FoIs",
    "HybridOptimizer",
    "LevelNormTower",
    "PaddedRoIs",
    "PointAssigner",
    "PointCriterion",
    "PointGIoUCost",
    "PointGIoULoss",
    "PointHead",
    "PointOwnerMatcher",
    "PointPostprocess",
    "PointPredictions",
    "PointTowers",
    "Points",
    "ProposalCriterion",
    "ProposalOwnerMatcher",
    "ProposalSampler",
    "RestrictedFocalLoss",
    "RoIOutputs",
    "RoIPredictions",
    "RoIStage",
    "RoITransformer",
    "RoIs",
    "SharedPointAssigner",
    "SigmoidClassifier",
    "SoftmaxClassifier",
    "TSPROIHeads",
    "TaughtPredictions",
    "Teacher",
    "TeacherMatcher",
    "TowerRPNHead",
    "build_msra_resnet",
    "get_hybrid_groups",
]
