"""Conditional-DETR."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class ConditionalDETR(DETR):
    """Conditional DETR for fast training convergence (Meng et al. 2021): DETR whose decoder compares contents and
    positions separately (`ConditionalDecoderLayer`, `ConditionalQueries`, `ConditionalPosition`).
    """
