"""DINO with a plain ViT-B, pretrained by MAE, and a simple feature pyramid (ViTDet), 4 scales: 12 epochs.

Not published in this form: detrex's DINO-ViTDet-B, 50.2 AP, reads five maps of the pyramid, of images padded to 1024
pixels. Every third of the blocks attends to the whole image, the others to windows of 14 patches. detrex notes that
training without warm-up is not stable: set `train.warmup_epochs`. Needs timm: `pip install 'align_detr[timm]'`.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import SimplePyramid, TimmBackbone, pixel_statistics

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(SimplePyramid)(
    net=L(TimmBackbone)(
        name="samvit_base_patch16", out_features=["res4"], drop_path=0.1, options=dict(img_size=224, window_size=14)
    ),
    out_channels=256,
    out_features=["res3", "res4", "res5"],
)
model.neck.in_channels = dict(res3=256, res4=256, res5=256)
model.update(pixel_statistics("vit_base_patch16_224.mae"))
train.output_dir = "./output/dino_vit_base_4scale_12ep"
train.init_checkpoint = "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"
