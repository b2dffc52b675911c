"""The detectors, registered in detectron2 by their class names, and RCNN, the base of those with regions."""

from align_detr.modeling.meta_arch.conditional_detr import ConditionalDETR
from align_detr.modeling.meta_arch.dab_detr import DABDETR
from align_detr.modeling.meta_arch.deformable_detr import DABDeformableDETR, DeformableDETR, HDeformableDETR
from align_detr.modeling.meta_arch.detr import DETR
from align_detr.modeling.meta_arch.dino import DINO, GroupDINO
from align_detr.modeling.meta_arch.dn_detr import DNDETR, DNDeformableDETR
from align_detr.modeling.meta_arch.group_detr import GroupDETR
from align_detr.modeling.meta_arch.rcnn import RCNN

__all__ = [
    "DABDETR",
    "DETR",
    "DINO",
    "DNDETR",
    "RCNN",
    "ConditionalDETR",
    "DABDeformableDETR",
    "DNDeformableDETR",
    "DeformableDETR",
    "GroupDETR",
    "GroupDINO",
    "HDeformableDETR",
]
