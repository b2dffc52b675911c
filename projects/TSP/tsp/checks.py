"""Checks of settings and of parts that must fit each other."""

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from align_detr.errors import ConfigError
from align_detr.structures import Predictions

PredictionsOfDetector = TypeVar("PredictionsOfDetector", bound=Predictions)


def check_range_of_shares(value: Sequence[float], key: str) -> tuple[float, float]:
    """Return the setting at `key` as (low, high); raise ConfigError unless 0 < low <= high <= 1."""
    if len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
        raise ConfigError(f"{key} is {list(value)}, but must be two shares: set 0 < low <= high <= 1.")
    return float(value[0]), float(value[1])


def require_type(preds: Predictions, kind: type[PredictionsOfDetector], reader: nn.Module) -> PredictionsOfDetector:
    """Return `preds`, which `reader` is to read; raise ConfigError unless they are of type `kind`."""
    if not isinstance(preds, kind):
        raise ConfigError(
            f"{type(reader).__name__} reads {kind.__name__}, but the model predicts {type(preds).__name__}: remove it "
            "from the criterion, or use it in the detector of TSP that it is made for."
        )
    return preds


def check_every_image_counts(matcher: nn.Module, key: str) -> None:
    """Raise ConfigError if the matcher at the config's `key` skips images of a step.

    The losses that do not depend on the matching would still use these images.
    """
    if getattr(matcher, "on_nonfinite", "raise") != "raise":
        raise ConfigError(
            f'{key}.on_nonfinite is "{matcher.on_nonfinite}", which is not supported, because the other losses of TSP '
            'would still use the skipped image: set it to "raise".'
        )
