"""DN-DETR with a ResNet-50 (Li et al. 2022): DAB-DETR and five groups of denoising queries, labels 0.2, boxes 0.4."""

from align_detr.modeling import DNDETR

from ..denoising import denoised
from .dab_detr_r50 import model

model._target_ = DNDETR
model.queries = denoised(model.queries)
