"""The TSP-RCNN detector."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch import RCNN


@META_ARCH_REGISTRY.register()
class TSPRCNN(RCNN):
    """detectron2's R-CNN with `TSPROIHeads` (Sun et al. 2021): its inputs, outputs, losses and yacs keys.

    See `TSPROIHeads.from_config` for the keys.
    """
