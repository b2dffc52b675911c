"""The ablations' detector with mixed matching and Rank-DETR's GIoU-aware focal loss."""

from detectron2.config import LazyCall as L

from align_detr.modeling import GIoUAwareFocalLoss, set_class_loss

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(GIoUAwareFocalLoss)(weight=2.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/digits_giou_focal"
