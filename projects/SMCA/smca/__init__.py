"""SMCA (Gao et al. 2021): cross-attention with a Gaussian prior around the expected centre of each query's object.

Importing this package registers the detector in detectron2, and the names of released weights. `__all__` lists every
class.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.smca.attention import ModulatedAttention, ScaleSelectiveAttention
from align_detr.projects.smca.checkpoint import convert_smca_detr, is_smca_detr
from align_detr.projects.smca.decoder import ModulatedDecoder
from align_detr.projects.smca.encoder import IntraAndMultiScaleEncoder, IntraScaleEncoderLayer
from align_detr.projects.smca.layers import ModulatedDecoderLayer, ScaleSelectiveDecoderLayer
from align_detr.projects.smca.meta_arch import SMCADETR
from align_detr.projects.smca.neck import ExtentMemory, ExtentNeck, ScalesMemory, ScalesNeck

register_release(
    is_smca_detr,
    lambda state, num_classes: convert_smca_detr(state, num_classes=num_classes),
    name="SMCA-DETR",
    config=lambda _: "SMCA/smca_r50_50ep.py",
)

__all__ = [
    "SMCADETR",
    "ExtentMemory",
    "ExtentNeck",
    "IntraAndMultiScaleEncoder",
    "IntraScaleEncoderLayer",
    "ModulatedAttention",
    "ModulatedDecoder",
    "ModulatedDecoderLayer",
    "ScaleSelectiveAttention",
    "ScaleSelectiveDecoderLayer",
    "ScalesMemory",
    "ScalesNeck",
]
