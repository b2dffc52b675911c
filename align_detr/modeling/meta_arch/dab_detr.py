"""DAB-DETR."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class DABDETR(DETR):
    """DAB-DETR: dynamic anchor boxes are better queries for DETR (Liu et al. 2022): DETR whose queries are boxes that
    each decoder layer moves (`AnchorQueries`, `AnchorPosition`, a decoder with `refine`).
    """
