"""The TSP-RCNN detector."""

from typing import cast

from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.modeling.meta_arch import RCNN
from align_detr.projects.tsp.rcnn.padded import propose
from align_detr.projects.tsp.rcnn.roi_heads import ClassWiseNMS, TSPROIHeads


@META_ARCH_REGISTRY.register()
class TSPRCNN(RCNN):
    """detectron2's R-CNN with `TSPROIHeads` (Sun et al. 2021): its inputs, outputs, losses and yacs keys.

    See `TSPROIHeads.from_config` for the keys.
    """

    def detect_padded(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels as tensors, for export: normalised images (B, 3, H, W), sizes (B, 2).

        Raise ConfigError for other parts than detectron2's `RPN`, `TSPROIHeads` and `ClassWiseNMS`.
        """
        heads = self.roi_heads
        if not isinstance(heads, TSPROIHeads) or not isinstance(heads.postprocess, ClassWiseNMS):
            raise ConfigError(
                "model.roi_heads has no form for export: make it TSPROIHeads with ClassWiseNMS as its postprocess."
            )
        features: dict[str, Tensor] = cast(nn.Module, self.backbone)(images)
        rois = propose(cast(nn.Module, self.proposal_generator), features, sizes)
        return heads.postprocess.of_padded(*heads.predict(features, rois))
