"""A detector as one function of tensors: pixels and sizes in, boxes, scores and labels out."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.export.attention import use_plain_attention
from align_detr.export.postprocess import Found, best_of
from align_detr.inference.optimized.folding import fold_norms
from align_detr.inference.optimized.parts import LastLayerDecoder, has_last_layer
from align_detr.modeling.meta_arch import DETR
from align_detr.structures import MAIN


class ExportedDetector(nn.Module):
    """The graph of an exported file: what a detector finds in a padded batch.

    `model` is a detector of the DETR family in evaluation mode, of whose parts `detection_copy` makes the graph's.
    `flip` turns the channels of RGB pixels around for a model of BGR images. With `normalised`, images come normalised,
    in the model's channel order.
    """

    def __init__(self, model: DETR, *, flip: bool = False, normalised: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flip = flip
        self.normalised = normalised

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """Return boxes (B, N, 4) xyxy in pixels, scores (B, N) and labels (B, N) int64, best first.

        images (B, 3, H, W), uint8 in RGB or normalised; sizes (B, 2) int64: height and width of each image inside the
        padding at the right and the bottom. Places beyond an image's detections have score 0 and a box of zeros.
        """
        model = self.model
        x = self.pixels(images, sizes)
        padded = (x.shape[-2], x.shape[-1])
        features = model.backbone(x)
        memory = model.encoder(model.neck(features, sizes, padded))
        return best_of(model.postprocess, model.predict(memory)[MAIN], sizes)

    def pixels(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the normalised images in the model's channel order, with zeros as padding."""
        if not self.normalised:
            images = images.float()
            if self.flip:
                images = images.flip(1)
            images = (images - self.model.pixel_mean) / self.model.pixel_std
        rows, columns = (torch.arange(n, device=images.device) for n in images.shape[-2:])
        inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])  # (B, H, W)
        return images * inside[:, None].to(images.dtype)


def detection_copy(model: nn.Module) -> DETR:
    """Return a copy of a detector for export, on the CPU, in float32: norms folded, heads of the last layer alone.

    Raise ConfigError for a detector whose way from pixels to boxes is another than that of the DETR family.
    """
    if not isinstance(model, DETR) or type(model).predict is not DETR.predict:
        raise ConfigError(
            f"{type(model).__name__} cannot be exported, because it does more than the detectors of the DETR family: "
            "export one of those, such as detr/detr_r50_500ep.py."
        )
    criterion = getattr(model, "criterion", None)
    copied: Any = copy.deepcopy(model, {} if criterion is None else {id(criterion): None})
    copied.eval().float().to("cpu").requires_grad_(False)
    fold_norms(copied)
    use_plain_attention(copied)
    if has_last_layer(copied.decoder, copied.head):
        copied.decoder = LastLayerDecoder(copied.decoder, copied.head)
    return cast(DETR, copied)
