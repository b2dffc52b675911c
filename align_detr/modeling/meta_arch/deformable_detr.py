"""Deformable-DETR and its descendants."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor

from align_detr.modeling.batching import one_size_at_a_time
from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class DeformableDETR(DETR):
    """Deformable DETR: deformable transformers for end-to-end object detection (Zhu et al. 2021): DETR whose tokens and
    queries attend to a few sampling points in several levels; box refinement and proposals are optional parts.
    """

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Compute losses or detections as `DETR.forward`; in evaluation, one image size at a time and without padding.

        The neck's group norm, its strided convolution and the positions of anchors depend on padding, and published
        results are those of single images.
        """
        if self.training:
            return super().forward(batched_inputs)
        detect: Callable[[list[Mapping[str, Any]]], Any] = super().forward  # lists, outside of training
        return one_size_at_a_time(
            [x["image"] for x in batched_inputs], lambda indices: detect([batched_inputs[i] for i in indices])
        )


@META_ARCH_REGISTRY.register()
class DABDeformableDETR(DeformableDETR):
    """DAB-Deformable-DETR (Liu et al. 2022): Deformable-DETR whose queries are boxes that each layer moves, with
    positions computed from them (`ContentAnchorQueries` or `ProposalQueries`, `ScaledReferencePosition`).
    """


@META_ARCH_REGISTRY.register()
class HDeformableDETR(DeformableDETR):
    """DETRs with hybrid matching (Jia et al. 2023): Deformable-DETR with a second set of queries, in training only,
    matched one-to-many (`HybridQueries`).
    """
