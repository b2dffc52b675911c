"""The registered detector."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch import DETR


@META_ARCH_REGISTRY.register()
class SMCADETR(DETR):
    """Fast convergence of DETR with spatially modulated co-attention (Gao et al. 2021), on one map: each head of
    cross-attention looks first where its query expects the object.
    """
