"""What every loss on a matched set has in common."""

from collections.abc import Iterable

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.structures import Match, Predictions, Targets


class SetLoss(nn.Module):
    """(preds, targets, match, num_boxes) -> (r,): one value for each of the last r <= R rows, before `weight`.

    `name` is the middle of the reported names (`loss_<name>`, `loss_<name>_3`, `loss_<name>_enc`); `num_boxes` is a 0-d
    tensor. `softmax` says of which kind of head it reads the logits, None of any or of none (see `check_head`).
    """

    softmax: bool | None = None

    def __init__(self, *, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = weight

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        raise NotImplementedError


def check_head(parts: Iterable[nn.Module | None], name: str, preds: Predictions) -> None:
    """Raises ConfigError where one of `parts` (losses, costs, a weighting) reads softmax logits and the head of the set
    gives sigmoid ones, or the other way round: every number would be finite, and wrong.
    """
    for part in parts:
        wanted = getattr(part, "softmax", None)
        if wanted is not None and wanted != preds.softmax:
            kinds = {True: 'softmax logits (K classes and "no object")', False: "sigmoid logits (K classes)"}
            raise ConfigError(
                f"{type(part).__name__} reads {kinds[wanted]}, but the head of the set '{name}' gives "
                f"{kinds[preds.softmax]}: change model.head, or the parts of model.criterion that do not fit it"
            )


def check_share(value: float, key: str) -> float:
    """The value; raises ConfigError where it is no share: outside [0, 1] a weight or an exponent would be negative."""
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{key} is {value}, but must lie in [0, 1]: set it to a number between them")
    return value


def sum_by_row(values: Tensor, match: Match, num_rows: int) -> Tensor:
    """Sums one value a match, times the match's weight, over each row: (M,) -> (R,). No match gives 0 with a gradient
    of zero.
    """
    if match.weight is not None:
        values = values * match.weight
    return values.new_zeros(num_rows).index_add(0, match.row, values)
