"""Draw what the focal loss and IA-BCE ask of the score of a matched query, as a function of its score and IoU.

    python docs/figures/class_targets.py [--out docs/figures/class_targets.png]

Both values come from the losses' own code: the target from their two weights, the push by autograd.
"""

from dataclasses import dataclass

import numpy as np
import torch
from figure_files import options, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from align_detr.modeling.losses import BinaryLoss, IABCELoss, SigmoidFocalLoss
from align_detr.report.plotting import LIGHT, settings

SIDE = 200  # cells of the grid in each direction
LEVELS = [0.2, 0.4, 0.6, 0.8]


@dataclass
class Field:
    """What a loss asks of matched queries, in arrays (n, n) whose rows are scores and whose columns are IoUs, both the
    centres of n cells between 0 and 1: `target`, the probability of least loss while the weights stay, and `push`,
    minus the derivative of the loss by the logit.
    """

    target: np.ndarray
    push: np.ndarray


def field_of(loss: BinaryLoss, side: int = SIDE) -> Field:
    """Return the field of a loss, for queries without a prime-sample weight."""
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    s, u = torch.meshgrid(centres, centres, indexing="ij")  # (n, n): rows are scores, columns IoUs
    w_pos, w_neg = (torch.as_tensor(w).expand_as(s) for w in loss.positive(s, u, 1.0))
    logits = s.logit().float().flatten()[:, None].requires_grad_()  # (n n, 1): one class
    labels = torch.zeros(side * side, dtype=torch.int64)
    loss.elementwise(logits, labels, u.float().flatten()).sum().backward()
    assert logits.grad is not None
    return Field((w_pos / (w_pos + w_neg)).numpy(), -logits.grad.view(side, side).numpy())


def draw(side: int = SIDE) -> Figure:
    """Return the figure: a panel per loss, of `side` cells in each direction."""
    with settings():
        figure = Figure(figsize=(8.6, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_field(left, field_of(SigmoidFocalLoss(), side), "Focal loss: target 1, whatever the IoU")
        _draw_field(right, field_of(IABCELoss(), side), "IA-BCE: target t from score and IoU")
        left.set_ylabel("score s of the matched query")
        for axes in (left, right):
            axes.set_xlabel("IoU u of its box with the object")
    return figure


def _draw_field(axes: Axes, field: Field, title: str) -> None:
    """Draw the push as colours and the target as lines."""
    largest = np.ceil(10 * np.abs(field.push).max()) / 10
    side = len(field.push)
    centres = (np.arange(side) + 0.5) / side
    bands = axes.contourf(centres, centres, field.push, np.linspace(-largest, largest, 24), cmap="PuOr")
    if np.ptp(field.target) > 1e-3:  # a constant has no lines
        lines = axes.contour(centres, centres, field.target, LEVELS, colors=LIGHT["ink"], linewidths=1.0)
        at = 0.85  # the score of the labels, where t = s^0.25 u^0.75
        axes.clabel(lines, fmt="t = %.1f", fontsize=8.5, manual=[((t / at**0.25) ** (4 / 3), at) for t in LEVELS])
        axes.contour(centres, centres, field.push, [0.0], colors=LIGHT["d1"], linewidths=2.2, linestyles="--")
    axes.grid(False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(title, fontsize=10.5)
    bar = axes.figure.colorbar(bands, ax=axes, shrink=0.9, ticks=np.linspace(-largest, largest, 5), format="%+.2f")
    bar.set_label("push on the logit: - down, + up", fontsize=9)


def main() -> None:
    """Write the figure."""
    args = options(__doc__, "class_targets.png").parse_args()
    write(draw(), args.out)


if __name__ == "__main__":
    main()
