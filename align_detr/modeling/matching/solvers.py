"""The solvers of assignments, by the name that a matcher's `solver` gives."""

import importlib.util
import logging
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from align_detr.errors import ConfigError
from align_detr.modeling.matching.costs import Cost
from align_detr.modeling.matching.numba_solver import NumbaSolver
from align_detr.modeling.matching.scipy_solver import SciPySolver
from align_detr.structures import Predictions, Targets

KEY = "model.criterion.matcher.solver"

logger = logging.getLogger(__name__)


class Solver(Protocol):
    """The interface of a solver."""

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], copies: np.ndarray) -> np.ndarray:
        """Return the cheapest pairs in every row and image, (4, M): row, image, query and target of every pair, ordered
        by row, image and query.

        `cost` (R, N, Q) holds the N targets of all images, `counts` of each image, concatenated; `copies` (R, B) is the
        number of queries that each row gives the targets of each image, 0 to leave it out. Exact in float64. Of several
        equal optima one solver always returns the same one. A pair of infinite cost is never chosen. Raise ValueError
        for NaN and minus infinity, and if every assignment of an image costs infinity.
        """

    def match(
        self, costs: Collection[Cost], preds: Predictions, targets: Targets, copies: np.ndarray
    ) -> np.ndarray | None:
        """Match without a cost matrix. Return None if this solver cannot: unusual costs, non-finite values, or shapes
        that do not agree; the caller then computes the costs.

        Both values are on the host, in float32; the targets are those of the set (`Predictions.own_targets`), and no
        pair is forbidden.
        """


def solver_of(name: str) -> Solver:
    """Return the solver "scipy", "numba", or "auto": numba if it is installed, else SciPy. Raise ConfigError for any
    other name, or for numba if it cannot be imported.
    """
    if name not in ("auto", "scipy", "numba"):
        raise ConfigError(f'{KEY} is "{name}": set it to "auto", "scipy" or "numba".')
    if name == "scipy" or (name == "auto" and importlib.util.find_spec("numba") is None):
        return SciPySolver()
    try:
        return NumbaSolver()
    except Exception as error:  # a numba that does not fit other packages fails in many ways
        if name == "auto":
            logger.warning("numba cannot be imported, so SciPy solves the matching, slower in crowds: %s.", error)
            return SciPySolver()
        raise ConfigError(
            f'{KEY} is "numba", which cannot be imported ({error}): pip install numba, or set it to "scipy".'
        ) from None
