"""Sums of the reported losses: of a set's layers, by the names that `SetCriterion` gives."""

import re
from collections.abc import Iterable, Mapping

from align_detr.structures import DENOISED, MAIN, ONE_TO_MANY, PROPOSED

_LAYER = re.compile(r"_\d+$")
_SETS = (PROPOSED, DENOISED, ONE_TO_MANY)


def sums_by_set(losses: Mapping[str, float], others: Iterable[str] = ()) -> dict[str, dict[str, float]]:
    """Return {set: {loss: sum over its layers}} of losses by their reported names, the set `main` first.

    A name is `loss_<name>`, with `_<set>` and `_<layer>` where they are not main and the last. Sets are the library's
    own and `others`. Losses of other detectors, such as detectron2's, are of the set `main`.
    """
    sets = sorted({*_SETS, *others}, key=len, reverse=True)
    sums: dict[str, dict[str, float]] = {MAIN: {}}
    for name, value in losses.items():
        full = _LAYER.sub("", name).removeprefix("loss_")
        of = next((each for each in sets if full.endswith(f"_{each}")), "")
        of_set, loss = sums.setdefault(of or MAIN, {}), full.removesuffix(f"_{of}") if of else full
        of_set[loss] = of_set.get(loss, 0.0) + value
    return {name: of_set for name, of_set in sums.items() if of_set}


def describe_sums(sums: Mapping[str, Mapping[str, float]], total: float) -> str:
    """Return total and sums in one line: "3.21 (class 1.2 bbox 2.01)", with the sets' names if there are several."""
    parts = {name: " ".join(f"{loss} {value:.4g}" for loss, value in of_set.items()) for name, of_set in sums.items()}
    sets = [text if len(parts) == 1 else f"{name}: {text}" for name, text in parts.items()]
    return f"{total:.4g} ({' | '.join(sets)})" if sets else f"{total:.4g}"


def loss_names(names: Iterable[str]) -> list[str]:
    """Return the names that are losses', as detectron2 and `SetCriterion` call them."""
    return [name for name in names if name.startswith("loss_")]
