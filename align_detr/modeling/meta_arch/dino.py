"""DINO and what is built on it."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.deformable_detr import DeformableDETR


@META_ARCH_REGISTRY.register()
class DINO(DeformableDETR):
    """DETR with improved denoising anchor boxes (Zhang et al. 2022): deformable attention to several scales, the
    proposals of the encoder as anchors of learned contents, contrastive denoising, and boxes that look forward twice.
    """


@META_ARCH_REGISTRY.register()
class GroupDINO(DINO):
    """Group DETR (Chen et al. 2022) on DINO: several sets of learned contents at the same proposals in training, one in
    evaluation (`GroupMixedSelectionQueries`).
    """
