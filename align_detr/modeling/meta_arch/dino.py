"""DINO and Group-DINO."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.deformable_detr import DeformableDETR


@META_ARCH_REGISTRY.register()
class DINO(DeformableDETR):
    """DETR with improved denoising anchor boxes (Zhang et al. 2022): deformable attention to several levels, encoder
    proposals as anchors of learned contents, contrastive denoising, and a decoder that looks forward twice.
    """


@META_ARCH_REGISTRY.register()
class GroupDINO(DINO):
    """Group DETR (Chen et al. 2022) on DINO: several query groups of learned contents at the same proposals in
    training, one in evaluation (`GroupMixedSelectionQueries`).
    """
