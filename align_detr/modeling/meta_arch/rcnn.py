"""detectron2's R-CNN for this library's trainer and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Instances
from torch import Tensor

from align_detr.errors import DatasetError
from align_detr.lazy_config import model_from_yacs
from align_detr.modeling.batching import one_size_at_a_time, targets_of_batch
from align_detr.modeling.half_precision import Float32PixelStatistics, in_precision_of_weights
from align_detr.modeling.meta_arch.release_reader import ReleaseReader


class RCNN(ReleaseReader, Float32PixelStatistics, GeneralizedRCNN):
    """detectron2's R-CNN: its inputs, outputs, losses, state dict and yacs keys.

    It adds what every detector of the library has: the number of classes, errors that name the image of a wrong
    annotation, and detections that do not depend on the rest of the batch.
    """

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the constructor's arguments from a yacs config.

        They come from the two keys of `align_detr.config` if these name a config, otherwise from detectron2's keys.
        """
        if cfg.MODEL.get("ALIGN_DETR", {}).get("CONFIG"):
            return model_from_yacs(cfg, cls)
        return super().from_config(cfg)

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return cast(Any, self.roi_heads).num_classes  # to nn.Module every attribute is a tensor or a module

    @in_precision_of_weights
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Return losses in training, otherwise detections, as `GeneralizedRCNN` does.

        Training needs detectron2's `EventStorage`, to which the proposal generator reports. Raise DatasetError with the
        file of an annotation that cannot be used.
        """
        if self.training:
            targets = targets_of_batch(batched_inputs, num_classes=self.num_classes, device="cpu")
            for i, x in enumerate(targets.instances):
                if not x.gt_boxes.nonempty().all():
                    raise DatasetError(
                        f"Image {targets.name_of(i)} has a box without width or height, whose logarithm an R-CNN "
                        "needs: leave such boxes out in the mapper."
                    )
        return super().forward(batched_inputs)

    def inference(
        self,
        batched_inputs: Sequence[Mapping[str, Any]],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Return detections as `GeneralizedRCNN.inference` does, with images of one size at a time.

        Padding would change the maps at the borders of smaller images, and with them the proposals.
        """
        infer = super().inference

        def detect(indices: list[int]) -> Sequence[Any]:
            known = None if detected_instances is None else [detected_instances[i] for i in indices]
            return infer([batched_inputs[i] for i in indices], known, do_postprocess)

        return one_size_at_a_time([x["image"] for x in batched_inputs], detect)
