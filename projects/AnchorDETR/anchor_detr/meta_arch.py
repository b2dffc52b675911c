"""The registered detector."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch import DETR


@META_ARCH_REGISTRY.register()
class AnchorDETR(DETR):
    """Anchor-DETR (Wang et al. 2022): a query is an anchor point with one of a few patterns.

    It predicts where its object is relative to that point.
    """
