"""Where the tests find the shared numeric fixtures, which are optional in a user's clone; and the solvers."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from support.paths import GOLDEN

if TYPE_CHECKING:
    from align_detr.modeling.matching.solvers import Solver

torch.set_num_threads(1)  # small tensors; and threads that wait for each other crawl on a busy machine


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder of the numeric fixtures; skips where there is none."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no numeric fixtures at {GOLDEN} (set ALIGN_DETR_GOLDEN)")
    return GOLDEN


needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.fixture(scope="module", params=["scipy", pytest.param("numba", marks=needs_numba)])
def solver(request: pytest.FixtureRequest) -> Iterator["Solver"]:
    """Each solver; a matcher that is told none takes it."""
    from align_detr.modeling import matcher
    from align_detr.modeling.matching.solvers import solver_of

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher, "solver_of", lambda name: solver_of(request.param if name == "auto" else name))
        yield solver_of(request.param)
