"""Group-DETR."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class GroupDETR(DETR):
    """Group DETR: fast DETR training with group-wise one-to-many assignment (Chen et al. 2022): several query groups in
    training, one in evaluation (`GroupQueries`).
    """
