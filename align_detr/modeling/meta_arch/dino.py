"""DINO under its own name."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class DINO(DETR):
    """DETR with improved denoising anchor boxes (Zhang et al. 2022): deformable attention to several scales, the
    proposals of the encoder as anchors of learned contents, contrastive denoising, and boxes that look forward twice.
    """
