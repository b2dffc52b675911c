"""SMCA (Gao et al. 2021): cross-attention that starts from a Gaussian around where each query expects its object."""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.smca.checkpoint import convert_smca_detr, is_smca_detr
from align_detr.projects.smca.decoder import ModulatedDecoder
from align_detr.projects.smca.layers import ModulatedDecoderLayer
from align_detr.projects.smca.meta_arch import SMCADETR
from align_detr.projects.smca.neck import ExtentNeck

register_release(is_smca_detr, lambda state, num_classes: convert_smca_detr(state, num_classes=num_classes))

__all__ = ["SMCADETR", "ExtentNeck", "ModulatedDecoder", "ModulatedDecoderLayer"]
