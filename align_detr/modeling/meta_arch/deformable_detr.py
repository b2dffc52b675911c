"""Deformable-DETR and what is built on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor

from align_detr.modeling.batching import one_size_at_a_time
from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class DeformableDETR(DETR):
    """Deformable DETR: deformable transformers for end-to-end object detection (Zhu et al. 2021): tokens and queries
    attend to a few sampled places of several levels. With or without box refinement and proposals: the parts make the
    difference.
    """

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """As `DETR.forward`. In evaluation images of different sizes are seen one size after another, without padding:
        the neck's group norm and strided convolution and the positions of anchors all depend on it, and published
        results are those of single images.
        """
        if self.training:
            return super().forward(batched_inputs)
        detect: Callable[[list[Mapping[str, Any]]], Any] = super().forward  # a list, as this is no training
        return one_size_at_a_time(
            [x["image"] for x in batched_inputs], lambda indices: detect([batched_inputs[i] for i in indices])
        )


@META_ARCH_REGISTRY.register()
class DABDeformableDETR(DeformableDETR):
    """DAB-Deformable-DETR (Liu et al. 2022): Deformable-DETR whose queries are boxes that each layer moves, with
    positions made from them (`ContentAnchorQueries` or `ProposalQueries`, `ScaledReferencePosition`).
    """


@META_ARCH_REGISTRY.register()
class HDeformableDETR(DeformableDETR):
    """H-Deformable-DETR: DETRs with hybrid matching (Jia et al. 2023): a second set of queries, in training only, that
    is matched one-to-many (`HybridQueries`).
    """
