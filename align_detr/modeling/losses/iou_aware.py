"""Classification losses of other papers with the overlap u of a matched query, held constant, as their target."""

import torch
from torch import Tensor

from align_detr.checks import check_number, check_share
from align_detr.modeling.losses.binary import FocusedLoss, Weight
from align_detr.modeling.losses.quality import matched_giou
from align_detr.structures import Match, Predictions, Targets

NEGATIVE_UP_TO, POSITIVE_FROM = 0.5, 0.95  # IoUs, of DualWeightingLoss


class QualityFocalLoss(FocusedLoss):
    """Loss |T - s|^gamma BCE(s, T) with T = w u; T = 0 for all others (GFL, Li et al. 2020, equation 2)."""

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return |T - s|^gamma T, |T - s|^gamma (1 - T)."""
        target = w * u
        focus = (target - s).abs() ** self.gamma
        return focus * target, focus * (1 - target)


class VariFocalLoss(FocusedLoss):
    """Varifocal loss T BCE(s, T) with T = w u; alpha s^gamma BCE(s, 0) for all others, and where T is 0 (VarifocalNet,
    Zhang et al. 2021, equation 2).
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)
        # No share: it multiplies the negatives, and may exceed 1.
        self.alpha = check_number(alpha, f"model.criterion.losses: alpha of {type(self).__name__}", least=0)

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return T T, T (1 - T)."""
        target = w * u
        return target * target, torch.where(target > 0, target * (1 - target), self.negative(s))

    def negative(self, s: Tensor) -> Weight:
        """Return alpha s^gamma."""
        return self.alpha * s**self.gamma


class MatchabilityAwareLoss(FocusedLoss):
    """Matchability-aware loss BCE(s, T) with T = w u^gamma; s^gamma BCE(s, 0) for all others, its weight held constant
    as in the released code (DEIM, Huang et al. 2025; gamma 1.5). Matches of low overlap count more than in VFL.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, gamma: float = 1.5) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return T, 1 - T."""
        target = w * u**self.gamma
        return target, 1 - target

    def negative(self, s: Tensor) -> Weight:
        """Return s^gamma, without gradient."""
        return s.detach() ** self.gamma


class PositionSupervisedLoss(QualityFocalLoss):
    """Position-supervised loss |T - s|^gamma BCE(s, T) with T = w psi(u^2); T = 0 for all others (Stable-DINO, Liu et
    al. 2023): only the position says how confident a query should be.

    psi rescales the squares of each image, in each row, so that the largest is the largest IoU there, as TOOD does for
    its metric. On plain tensors, `elementwise` takes psi(u^2) as its `iou`: see `rescaled_squares`.
    """

    def overlap(self, preds: Predictions, targets: Targets, match: Match) -> Tensor:
        """Return psi(u^2) of each match, (M,)."""
        rows, images = preds.logits.shape[:2]
        iou = super().overlap(preds, targets, match)
        return rescaled_squares(iou, match.row * images + match.image, rows * images)


class GIoUAwareFocalLoss(FocusedLoss):
    """GIoU-aware focal loss alpha |T - s|^gamma BCE(s, T) with T = w v, v = (GIoU + 1) / 2; (1 - alpha) s^gamma BCE(s,
    0) for all others (Rank-DETR, Pu et al. 2023).

    In the released code the encoder's proposals keep the focal loss; here all sets have this one. On plain tensors,
    `elementwise` takes v as its `iou`.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)
        self.alpha = check_share(alpha, f"model.criterion.losses: alpha of {type(self).__name__}")

    def overlap(self, preds: Predictions, targets: Targets, match: Match) -> Tensor:
        """Return v of each match, (M,), in [0, 1]."""
        return (matched_giou(preds, targets, match) + 1) / 2

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return alpha |T - s|^gamma T, alpha |T - s|^gamma (1 - T)."""
        target = w * u
        focus = self.alpha * (target - s).abs() ** self.gamma
        return focus * target, focus * (1 - target)

    def negative(self, s: Tensor) -> Weight:
        """Return (1 - alpha) s^gamma."""
        return (1 - self.alpha) * s**self.gamma


class DualWeightingLoss(FocusedLoss):
    """Dual weighting loss, w and P s^gamma; s^gamma for all others (DW, Li et al. 2022). w is the weight that
    `DualWeighting` gives, s^gamma the importance of a negative, and P, the probability that the query is one, falls
    from 1 at an IoU of 0.5 to 0 at 0.95, linearly in u^power.

    The two bounds are COCO's lowest and highest threshold. The released code instead takes P to 0 at the best IoU among
    an object's anchors, and multiplies the positive term by 0.25.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, gamma: float = 2.0, power: float = 2.0) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)
        self.power = check_number(power, "model.criterion.losses: power of DualWeightingLoss", least=0.1)

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return w, P s^gamma."""
        low, high = (bound**self.power for bound in (NEGATIVE_UP_TO, POSITIVE_FROM))
        probability = ((high - u**self.power) / (high - low)).clamp(0, 1)
        return w, probability * s**self.gamma


@torch.no_grad()
def rescaled_squares(iou: Tensor, image: Tensor, num_images: int) -> Tensor:
    """Return u^2 max(u) / max(u^2) = u^2 / max(u), with the maximum over the matches of one image: iou, image (M,) ->
    (M,). An image without any overlap keeps 0.
    """
    iou = iou.float()
    largest = iou.new_zeros(num_images).scatter_reduce(0, image, iou, "amax")
    return iou**2 / largest.clamp(min=torch.finfo(iou.dtype).tiny)[image]
