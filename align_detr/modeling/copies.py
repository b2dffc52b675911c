"""How many queries each target is given: the matcher's `copies`, and their bound."""

from collections.abc import Mapping, Sequence

import numpy as np

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.structures import Predictions

KEY = "model.criterion.matcher.copies"


def checked_copies(copies: Mapping[str, int | Sequence[int]]) -> dict[str, int | list[int]]:
    """`copies` with plain numbers and lists of them. Raises ConfigError for what is no whole number of at least 1."""
    if not isinstance(copies, Mapping):
        raise ConfigError(f"{KEY} is {copies}: name the set, as in {KEY}.main=3")
    for name, k in copies.items():
        for number in k if isinstance(k, Sequence) and not isinstance(k, str) else [k]:
            check_count(number, f"{KEY}.{name}")
    return {name: k if isinstance(k, int) else list(k) for name, k in copies.items()}


def check_names(copies: Mapping[str, object], sets: Mapping[str, Predictions]) -> None:
    """Raises ConfigError for a set that the model does not predict, or whose match is known."""
    for name in copies:
        if name not in sets:
            raise ConfigError(f"{KEY} names the set '{name}', but the model predicts {', '.join(sets)}")
        if sets[name].match is not None:
            raise ConfigError(f"{KEY} names the set '{name}', whose matches are known beforehand: leave it out")


def copies_of_rows(copies: Mapping[str, int | Sequence[int]], name: str, num_rows: int, groups: int) -> np.ndarray:
    """(R,) copies wanted in each row of the set; the `groups` query groups of a layer share a number. Raises
    ConfigError where there are not as many numbers as layers.
    """
    layers = num_rows // groups
    wanted = copies.get(name, 1)
    wanted = [wanted] * layers if isinstance(wanted, int) else wanted
    if len(wanted) != layers:
        raise ConfigError(
            f"{KEY} of set '{name}' names {len(wanted)} layers, but the model predicts {layers}: give one "
            "number for each"
        )
    return np.repeat(wanted, groups)


def bounded(copies: np.ndarray, counts: np.ndarray, usable: np.ndarray | int) -> np.ndarray:
    """copies (R,), counts (B,) targets, usable queries (R, B) or one number -> (R, B): max(1, min(k, Q // (2 n))), and
    0 where there is no target.
    """
    bound = np.maximum(1, np.minimum(copies[:, None], usable // np.maximum(1, 2 * counts)))
    return np.where(counts > 0, bound, 0)
