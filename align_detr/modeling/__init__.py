"""Every public part of the detectors. Configs import from here, so that files may move.

`docs/stability.md` says which promises these names carry.
"""

import warnings

from align_detr.layers import LearnedPositionEncoding, SinePositionEncoding
from align_detr.modeling.alignment import align, class_loss_of, set_class_loss
from align_detr.modeling.backbone import EfficientNetLite, MobileNetV2, build_resnet, build_small_resnet
from align_detr.modeling.conditional import ConditionalDecoderLayer, FirstConditionalDecoderLayer
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.decoder import Decoder
from align_detr.modeling.decoder_layers import DecoderLayer, PreNormDecoderLayer
from align_detr.modeling.deformable import DeformableDecoderLayer, DeformableEncoder, DeformableEncoderLayer
from align_detr.modeling.distinct import DistinctProposals, DistinctQueries, distinct_boxes
from align_detr.modeling.encoder import (
    Encoder,
    EncoderLayer,
    InputPositionEncoder,
    PreNormEncoderLayer,
    ScaledPositionEncoder,
)
from align_detr.modeling.head import LayerwiseHead, LayerwiseIoUHead, SharedHead, SoftmaxHead
from align_detr.modeling.losses import (
    AlignLoss,
    BinaryLoss,
    DualWeightingLoss,
    EqualGapLoss,
    FocusedLoss,
    FusedPostprocess,
    GapPositiveLoss,
    GIoUAwareFocalLoss,
    GIoULoss,
    IABCELoss,
    IoUBranchLoss,
    L1Loss,
    MatchabilityAwareLoss,
    MuSuLoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    QualityLoss,
    QualityPositiveLoss,
    SetLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropy,
    TOODLoss,
    UnitPositiveLoss,
    VariFocalLoss,
    alignment_quality,
    cardinality_error,
    class_error,
    rescaled_squares,
)
from align_detr.modeling.matcher import (
    Cost,
    FocalCost,
    GIoUCost,
    HighOrderCost,
    HungarianMatcher,
    L1Cost,
    PairCost,
    PositionModulatedCost,
    SoftmaxCost,
)
from align_detr.modeling.matching.one_to_many import BlendedCost, OneToManyAssigner
from align_detr.modeling.meta_arch import (
    DABDETR,
    DETR,
    DINO,
    DNDETR,
    RCNN,
    ConditionalDETR,
    DABDeformableDETR,
    DeformableDETR,
    DNDeformableDETR,
    GroupDETR,
    GroupDINO,
    HDeformableDETR,
)
from align_detr.modeling.meta_arch.detector import DetectorBase
from align_detr.modeling.neck import MultiScaleNeck, SingleScaleNeck
from align_detr.modeling.postprocess import SoftmaxPostprocess, TopKPostprocess
from align_detr.modeling.proposals import ClassProposals, ObjectProposals, TwoStageProposals
from align_detr.modeling.queries import (
    AnchorQueries,
    ConditionalQueries,
    ContentAnchorQueries,
    ContrastiveDenoisingQueries,
    DenoisingQueries,
    DenoisingSource,
    EncodedMixedSelectionQueries,
    EncodedProposalQueries,
    GroupMixedSelectionQueries,
    GroupQueries,
    HybridQueries,
    LearnedContentQueries,
    LearnedQueries,
    MixedSelectionQueries,
    PatternAnchorQueries,
    PointQueries,
    ProposalQueries,
)
from align_detr.modeling.query_position import (
    AnchorPosition,
    ConditionalPosition,
    GivenPosition,
    ReferencePosition,
    ScaledReferencePosition,
)
from align_detr.modeling.relation import PositionRelation, box_relation
from align_detr.modeling.routes import CrossAttentionRoute, FeedForwardRoute, InstructionRoute, Route, RoutedDecoder
from align_detr.modeling.switched_matcher import SwitchedMatcher
from align_detr.modeling.weighting import DualWeighting, PrimeSampleWeighting

__all__ = [
    "DABDETR",
    "DETR",
    "DINO",
    "DNDETR",
    "RCNN",
    "AlignLoss",
    "AnchorPosition",
    "AnchorQueries",
    "BinaryLoss",
    "BlendedCost",
    "ClassProposals",
    "ConditionalDETR",
    "ConditionalDecoderLayer",
    "ConditionalPosition",
    "ConditionalQueries",
    "ContentAnchorQueries",
    "ContrastiveDenoisingQueries",
    "Cost",
    "CrossAttentionRoute",
    "DABDeformableDETR",
    "DNDeformableDETR",
    "Decoder",
    "DecoderLayer",
    "DeformableDETR",
    "DeformableDecoderLayer",
    "DeformableEncoder",
    "DeformableEncoderLayer",
    "DenoisingQueries",
    "DenoisingSource",
    "DetectorBase",
    "DistinctProposals",
    "DistinctQueries",
    "DualWeighting",
    "DualWeightingLoss",
    "EfficientNetLite",
    "EncodedMixedSelectionQueries",
    "EncodedProposalQueries",
    "Encoder",
    "EncoderLayer",
    "EqualGapLoss",
    "FeedForwardRoute",
    "FirstConditionalDecoderLayer",
    "FocalCost",
    "FocusedLoss",
    "FusedPostprocess",
    "GIoUAwareFocalLoss",
    "GIoUCost",
    "GIoULoss",
    "GapPositiveLoss",
    "GivenPosition",
    "GroupDETR",
    "GroupDINO",
    "GroupMixedSelectionQueries",
    "GroupQueries",
    "HDeformableDETR",
    "HighOrderCost",
    "HungarianMatcher",
    "HybridQueries",
    "IABCELoss",
    "InputPositionEncoder",
    "InstructionRoute",
    "IoUBranchLoss",
    "L1Cost",
    "L1Loss",
    "LayerwiseHead",
    "LayerwiseIoUHead",
    "LearnedContentQueries",
    "LearnedPositionEncoding",
    "LearnedQueries",
    "MatchabilityAwareLoss",
    "MixedSelectionQueries",
    "MobileNetV2",
    "MuSuLoss",
    "MultiScaleNeck",
    "ObjectProposals",
    "OneToManyAssigner",
    "PairCost",
    "PatternAnchorQueries",
    "PointQueries",
    "PositionModulatedCost",
    "PositionRelation",
    "PositionSupervisedLoss",
    "PreNormDecoderLayer",
    "PreNormEncoderLayer",
    "PrimeSampleWeighting",
    "ProposalQueries",
    "QualityFocalLoss",
    "QualityLoss",
    "QualityPositiveLoss",
    "ReferencePosition",
    "Route",
    "RoutedDecoder",
    "ScaledPositionEncoder",
    "ScaledReferencePosition",
    "SetCriterion",
    "SetLoss",
    "SharedHead",
    "SigmoidFocalLoss",
    "SinePositionEncoding",
    "SingleScaleNeck",
    "SoftmaxCost",
    "SoftmaxCrossEntropy",
    "SoftmaxHead",
    "SoftmaxPostprocess",
    "SwitchedMatcher",
    "TOODLoss",
    "TopKPostprocess",
    "TwoStageProposals",
    "UnitPositiveLoss",
    "VariFocalLoss",
    "align",
    "alignment_quality",
    "box_relation",
    "build_resnet",
    "build_small_resnet",
    "cardinality_error",
    "class_error",
    "class_loss_of",
    "distinct_boxes",
    "rescaled_squares",
    "set_class_loss",
]


def __getattr__(name: str) -> object:
    """Return what a former name of this package stands for, with a warning that names the new one."""
    if name == "Detector":
        warnings.warn(
            "align_detr.modeling.Detector is now align_detr.modeling.DetectorBase: import it by that name.",
            FutureWarning,
            stacklevel=2,
        )
        return DetectorBase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
