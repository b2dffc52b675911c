"""DN-DETR and its form with several levels."""

from detectron2.modeling import META_ARCH_REGISTRY

from align_detr.modeling.meta_arch.deformable_detr import DABDeformableDETR
from align_detr.modeling.meta_arch.detr import DETR


@META_ARCH_REGISTRY.register()
class DNDETR(DETR):
    """DN-DETR: accelerate DETR training by introducing query denoising (Li et al. 2022): DAB-DETR that also learns to
    correct noisy objects in training (`DenoisingQueries`).
    """


@META_ARCH_REGISTRY.register()
class DNDeformableDETR(DABDeformableDETR):
    """DN-Deformable-DETR (Li et al. 2022): DAB-Deformable-DETR with the same denoising."""
