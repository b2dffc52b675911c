"""The registered detector."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch import DETR


@META_ARCH_REGISTRY.register()
class SMCADETR(DETR):
    """SMCA-DETR (Gao et al. 2021), on one map or on several scales: cross-attention starts near the expected centre of
    the query's object.
    """
