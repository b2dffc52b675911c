"""DINO-R50, 4 scales, with a second pass without self-attention in training, matched one-to-many: 12 epochs.

DAC-DETR (Hu et al. 2023) on Deformable-DETR with contrastive denoising, much as here: 50.0 AP, in whose evaluation
the released code suppresses class by class at an IoU of 0.8.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import CrossAttentionRoute, OneToManyAssigner, RoutedDecoder

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.decoder._target_ = RoutedDecoder
model.decoder.routes = [
    L(CrossAttentionRoute)(
        name="o2m", parts=["main", "dn"], scale=3.0, assigner=L(OneToManyAssigner)(threshold=0.4, most=6, share=0.7)
    )
]
train.output_dir = "./output/dac_dino_r50_4scale_12ep"
