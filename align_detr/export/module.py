"""A detector as one function of tensors: pixels and sizes in, boxes, scores and labels out."""

import copy
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.export.attention import use_plain_attention
from align_detr.export.postprocess import Found, best_of
from align_detr.export.windows import use_plain_windows
from align_detr.inference.optimized.folding import fold_norms
from align_detr.inference.optimized.parts import LastLayerDecoder, has_last_layer
from align_detr.modeling.meta_arch import DETR
from align_detr.structures import MAIN


@runtime_checkable
class TensorDetector(Protocol):
    """The interface of a detector outside of the DETR family that can be exported."""

    pixel_mean: Tensor
    pixel_std: Tensor
    backbone: Any

    def detect_padded(self, images: Tensor, sizes: Tensor) -> Found:
        """Return boxes, scores and labels, as `ExportedDetector` does, of normalised images (B, 3, H, W)."""


class ExportedDetector(nn.Module):
    """The graph of an exported file: what a detector finds in a padded batch.

    `model` is what `detection_copy` makes of a detector.
    `flip` turns the channels of RGB pixels around for a model of BGR images. With `normalised`, images come normalised,
    in the model's channel order.
    """

    def __init__(self, model: DETR | TensorDetector, *, flip: bool = False, normalised: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flip = flip
        self.normalised = normalised

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """Return boxes (B, N, 4) xyxy in pixels, scores (B, N) and labels (B, N) int64, best first.

        images (B, 3, H, W), uint8 in RGB or normalised; sizes (B, 2) int64: height and width of each image inside the
        padding at the right and the bottom. Places beyond an image's detections have score 0 and a box of zeros.
        """
        x = self.pixels(images, sizes)
        if not isinstance(self.model, DETR):
            return cast(TensorDetector, self.model).detect_padded(x, sizes)
        model, padded = self.model, (x.shape[-2], x.shape[-1])
        memory = model.encoder(model.neck(model.backbone(x), sizes, padded))
        return best_of(model.postprocess, model.predict(memory)[MAIN], sizes)

    def pixels(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the normalised images in the model's channel order, with zeros as padding, in sizes that the backbone
        takes.
        """
        if not self.normalised:
            images = images.float()
            if self.flip:
                images = images.flip(1)
            images = (images - self.model.pixel_mean) / self.model.pixel_std
        rows, columns = (torch.arange(n, device=images.device) for n in images.shape[-2:])
        inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])  # (B, H, W)
        images = images * inside[:, None].to(images.dtype)
        divisor = size_multiple(self.model)
        if divisor == 1:
            return images
        height, width = images.shape[-2:]
        return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def size_multiple(model: Any) -> int:
    """Return the number of which the height and the width of a padded batch are multiples."""
    return int(getattr(model.backbone, "size_divisibility", 0) or 1)


def detection_copy(model: nn.Module) -> DETR | TensorDetector:
    """Return a copy of a detector for export, on the CPU, in float32: norms folded, heads of the last layer alone.

    Raise ConfigError for a detector that is neither of the DETR family nor a `TensorDetector`.
    """
    of_family = isinstance(model, DETR) and type(model).predict is DETR.predict
    if not of_family and not isinstance(model, TensorDetector):
        raise ConfigError(
            f"{type(model).__name__} cannot be exported, because its way from pixels to detections is another than "
            "the DETR family's (masks or regions): export one of that family, such as detr/detr_r50_500ep.py."
        )
    criterion = getattr(model, "criterion", None)
    copied: Any = copy.deepcopy(model, {} if criterion is None else {id(criterion): None})
    copied.eval().float().to("cpu").requires_grad_(False)
    fold_norms(copied)
    use_plain_attention(copied)
    use_plain_windows(copied)
    if of_family and has_last_layer(copied.decoder, copied.head):
        copied.decoder = LastLayerDecoder(copied.decoder, copied.head)
    return copied
