"""Losses on the masks of matched queries (DETR, section 4.4)."""

import torch.nn.functional as F
from torch import Tensor

from align_detr.checks import check_number
from align_detr.modeling.losses.base import SetLoss, sum_by_row, weighted
from align_detr.projects.detr_segmentation.masks import HiddenPredictions
from align_detr.structures import Match, Predictions, Targets


class MaskLoss(SetLoss):
    """Base of the losses of masks: a value per matched query of the last layer, summed and divided by the number of
    targets. Sets without masks (denoising, proposals) have no such loss.

    Predicted masks are resized to the padded batch, as in DETR's code: pixels outside of an image count as background.
    """

    def elementwise(self, logits: Tensor, masks: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of plain tensors: logits and masks (..., H, W), masks 0 or 1, weight (...) -> (...) float32.

        `weight` are prime-sample weights.
        """
        return weighted(self.of_pixels(logits.float().flatten(-2), masks.float().flatten(-2)), weight)

    def of_pixels(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of each mask: logits and masks (..., P) float32 -> (...)."""
        raise NotImplementedError

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of the last layer, (groups,), or (0,) without masks."""
        if not isinstance(preds, HiddenPredictions) or preds.masks is None:
            return preds.boxes.new_zeros(0)
        found = preds.masks.matched(preds, targets, match)
        if found.truth is None:
            return (found.logits.sum() * 0.0).expand(preds.groups)
        return sum_by_row(self.elementwise(found.logits, found.truth), found.pairs, preds.groups) / num_boxes


class MaskFocalLoss(MaskLoss):
    """Focal loss of the pixels of a mask, averaged over them (Lin et al. 2017, equation 5, as DETR uses it)."""

    def __init__(self, *, name: str = "mask", weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight)
        self.alpha = check_number(alpha, "model.criterion.losses: alpha of MaskFocalLoss", least=0)
        self.gamma = check_number(gamma, "model.criterion.losses: gamma of MaskFocalLoss", least=0)

    def of_pixels(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of each mask: logits and masks (..., P) float32 -> (...)."""
        entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
        missing = (masks - logits.sigmoid()).abs()  # 1 minus the probability of the truth
        return ((self.alpha * masks + (1 - self.alpha) * (1 - masks)) * missing**self.gamma * entropy).mean(-1)


class DiceLoss(MaskLoss):
    """1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1) of probabilities p and mask m (Milletari et al. 2016, with DETR's
    1 in both terms: DETR, appendix A.2 on losses).
    """

    def __init__(self, *, name: str = "dice", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def of_pixels(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of each mask: logits and masks (..., P) float32 -> (...)."""
        p = logits.sigmoid()
        return 1 - (2 * (p * masks).sum(-1) + 1) / (p.sum(-1) + masks.sum(-1) + 1)
