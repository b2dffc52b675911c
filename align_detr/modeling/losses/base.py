"""What every loss on a matched set has in common."""

import math
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
        self.weight = check_number(weight, f"model.criterion.losses: weight of {type(self).__name__}")

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
                f"{kinds[preds.softmax]}: change model.{'proposals' if name == 'enc' else 'head'}, or the parts of "
                "model.criterion that do not fit it"
            )


def check_share(value: float, key: str) -> float:
    """The value; raises ConfigError where it is no share: outside [0, 1] a weight or an exponent would be negative."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{key} is {value!r}, but must lie in [0, 1]: set it to a number between them")
    return value


def check_number(value: float, key: str, least: float | None = None) -> float:
    """The value; raises ConfigError where it is no finite number, or below `least`."""
    if not is_number(value) or (least is not None and value < least):
        wanted = "a finite number" if least is None else f"a finite number of at least {least}"
        raise ConfigError(f"{key} is {value!r}, but must be {wanted}: set it to one")
    return value


def is_number(value: object) -> bool:
    """Whether it is a finite number. True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Float32 values (...) times their weights (...), where there are any."""
    return values if weight is None else values * weight.float()


def sum_by_row(values: Tensor, match: Match, num_rows: int) -> Tensor:
    """Sums one value a match, times the match's weight, over each row: (M,) -> (R,). No match gives 0 with a gradient
    of zero.
    """
    return values.new_zeros(num_rows).index_add(0, match.row, weighted(values, match.weight))
