"""TSP-RCNN."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch import RCNN
from align_detr.projects.tsp.rcnn import roi_heads, rpn  # noqa: F401  (they enter detectron2's registries)


@META_ARCH_REGISTRY.register()
class TSPRCNN(RCNN):
    """detectron2's R-CNN with `TSPROIHeads` (Sun et al. 2021): its inputs, outputs, losses and yacs keys (for these see
    `TSPROIHeads.from_config`).
    """
