"""Faster R-CNN with FPN (Ren et al. 2015, Lin et al. 2017), the baseline of TSP: detectron2's own model, and nothing of
it is rewritten here.
"""

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN

__all__ = ["FasterRCNN"]


@META_ARCH_REGISTRY.register()
class FasterRCNN(GeneralizedRCNN):
    """detectron2's R-CNN, which also says its number of classes: the trainer checks it against the data set."""

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return self.roi_heads.num_classes
