"""DN-Deformable-DETR with a ResNet-50 (Li et al. 2022): DAB-Deformable-DETR and DN-DETR's denoising queries.

The learned contents are added to the row "unknown" of the labels, and their last channel is the indicator.
"""

from align_detr.modeling import DNDeformableDETR

from ..denoising import denoised
from .dab_deformable_detr_r50 import model

model._target_ = DNDeformableDETR
model.queries = denoised(model.queries)
