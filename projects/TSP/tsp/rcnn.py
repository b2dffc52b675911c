"""TSP-RCNN."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Instances
from torch import Tensor

from align_detr.config import model_from_yacs
from align_detr.projects.tsp import roi_heads, rpn  # noqa: F401  (they enter detectron2's registries)
from align_detr.structures import Targets


@META_ARCH_REGISTRY.register()
class TSPRCNN(GeneralizedRCNN):
    """detectron2's R-CNN with `TSPROIHeads` (Sun et al. 2021): its inputs, outputs, losses and yacs keys.

    It adds what this project's trainer asks of a detector: the number of classes, and annotations that are checked on
    the host, where an error can name the image.
    """

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The constructor's arguments from a yacs config: from the two keys of `align_detr.config` where they name a
        config, else from detectron2's own keys (see `TSPROIHeads.from_config`).
        """
        if cfg.MODEL.get("ALIGN_DETR", {}).get("CONFIG"):
            return model_from_yacs(cfg, cls)
        return super().from_config(cfg)

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return self.roi_heads.num_classes

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """As `GeneralizedRCNN`; in training raises `DatasetError` with the file of an annotation that cannot be used.

        Training happens inside of detectron2's `EventStorage`, to which the proposal generator reports.
        """
        if self.training:
            Targets.from_instances(
                [x["instances"] for x in batched_inputs],
                num_classes=self.num_classes,
                device="cpu",
                names=[x.get("file_name", f"number {b} of the batch") for b, x in enumerate(batched_inputs)],
            )
        return super().forward(batched_inputs)
