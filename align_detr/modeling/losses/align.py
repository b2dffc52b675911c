"""Align-DETR's losses, and the variants that its appendix C compares.

Throughout, t = max(s^alpha u^(1 - alpha), 0.01) is held constant (equation 4), and w_neg of everything that is not
matched is s^gamma.
"""

from torch import Tensor

from align_detr.checks import check_share
from align_detr.modeling.losses.binary import FocusedLoss, Weight
from align_detr.modeling.losses.quality import alignment_quality


class QualityLoss(FocusedLoss):
    """Base of the losses that depend on Align-DETR's quality t; `alpha` is the share of the probability in it."""

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)
        self.alpha = check_share(alpha, f"model.criterion.losses: alpha of {type(self).__name__}")

    def target(self, s: Tensor, u: Tensor, w: Weight) -> Tensor:
        """Return T = w t, without gradient."""
        return w * alignment_quality(s, u, self.alpha)


class IABCELoss(QualityLoss):
    """IoU-aware binary cross-entropy: BCE(s, T) with T = w t for matched queries, s^gamma BCE(s, 0) for all others
    (Align-DETR, Cai et al. 2023, equations 4 to 6).
    """

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return T, 1 - T."""
        target = self.target(s, u, w)
        return target, 1 - target


class AlignLoss(QualityLoss):
    """Smooth IA-BCE: |T - s|^gamma BCE(s, T) with T = w t held constant for matched queries, s^gamma BCE(s, 0) for all
    others.

    A reading, not a copy: the authors describe the loss of the BMVC version of Align-DETR as a smooth modification of
    IA-BCE that absorbs the focal term, and its code is not public. With gamma 0 for the matched it would be IA-BCE.
    """

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return |T - s|^gamma T, |T - s|^gamma (1 - T)."""
        target = self.target(s, u, w)
        focus = (target - s).abs() ** self.gamma
        return focus * target, focus * (1 - target)


class TOODLoss(AlignLoss):
    """TOOD's loss (Feng et al. 2021, equation 6) in the form of Align-DETR's table 1, (T - s)^2 T and (T - s)^2 (1 - T)
    with f(IoU, s) = t. TOOD itself takes s u^6, normalised to the largest IoU of each object.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.25) -> None:
        super().__init__(name=name, weight=weight, alpha=alpha, gamma=2.0)


class MuSuLoss(QualityLoss):
    """Mutual supervision (Gao et al. 2021) in the form of Align-DETR's table 1, (s - T)^2 T and s^2 (1 - T)^4 with
    f(IoU, s) = t; everything not matched has t = 0, hence s^2.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.25) -> None:
        super().__init__(name=name, weight=weight, alpha=alpha, gamma=2.0)

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return (s - T)^2 T, s^2 (1 - T)^4."""
        target = self.target(s, u, w)
        return (s - target) ** 2 * target, s**2 * (1 - target) ** 4


class UnitPositiveLoss(FocusedLoss):
    """Weights 1 and 0 (Align-DETR, table B, row 2): neither the overlap nor the focal term for matched queries."""

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return w, 0."""
        return w, 0.0


class QualityPositiveLoss(QualityLoss):
    """Weights t and 0 (Align-DETR, table B, row 3): IA-BCE without its negative term."""

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return T, 0."""
        return self.target(s, u, w), 0.0


class EqualGapLoss(QualityLoss):
    """Weight (t - s)^2 for both terms (Align-DETR, table B, row 4)."""

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return (T - s)^2, (T - s)^2."""
        gap = (self.target(s, u, w) - s) ** 2
        return gap, gap


class GapPositiveLoss(QualityLoss):
    """Weights (t - s)^2 and (1 - t) s^2 (Align-DETR, table B, row 5)."""

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return (T - s)^2, (1 - T) s^2."""
        target = self.target(s, u, w)
        return (target - s) ** 2, (1 - target) * s**2
