"""Exact solvers of one assignment problem, by the name that a matcher's `solver` gives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from align_detr.errors import ConfigError

KEY = "model.criterion.matcher.solver"


@dataclass(frozen=True)
class Solver:
    """`solve` takes a cost (n, Q), finite, and returns rows and columns, (min(n, Q),) each, of least sum in float64, by
    ascending row. `parallel` says whether other threads run meanwhile. Of several equal optima, any is returned, by one
    solver always the same.
    """

    solve: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    parallel: bool


SCIPY = Solver(linear_sum_assignment, parallel=False)  # holds Python's lock: threads were measured not to help


def solver_of(name: str) -> Solver:
    """ "scipy", or "lapx": several times faster in crowds, an optional package. Raises ConfigError for any other, or
    where lapx is not installed.
    """
    if name == "scipy":
        return SCIPY
    if name != "lapx":
        raise ConfigError(f'{KEY} is "{name}", but only "scipy" and "lapx" are known')
    try:
        from lap import lapjvr
    except ImportError:
        raise ConfigError(
            f'{KEY} is "lapx", but lapx 0.11 or newer is not installed: pip install "lapx>=0.11", or set "scipy"'
        ) from None
    # in float64, as SciPy, whatever the cost has
    return Solver(partial(lapjvr, extend_cost=True, return_cost=False, precision="float64"), parallel=True)
