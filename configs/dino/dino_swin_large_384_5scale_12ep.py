"""DINO with Swin-L, 5 scales, the finest at stride 4: 12 epochs. detrex: 57.5 AP."""

from .dino_swin_large_384_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.in_channels = dict(res2=192, res3=384, res4=768, res5=1536)
for part in (model.neck, model.encoder.layer, model.decoder.layer):
    part.num_levels = 5
train.output_dir = "./output/dino_swin_large_384_5scale_12ep"
