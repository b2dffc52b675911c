"""The solvers that a matcher can be told to use: each against exhaustive search, both against each other."""

import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from itertools import permutations

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from parts import random_set

from align_detr.engine.run_config import load_config
from align_detr.errors import ConfigError
from align_detr.modeling import assignment
from align_detr.modeling import matcher as matcher_module
from align_detr.modeling.assignment import assign, assign_all
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.modeling.solvers import SCIPY, Solver, solver_of
from align_detr.structures import Match

lapx = pytest.mark.skipif(find_spec("lap") is None, reason="lapx is not installed")


@pytest.fixture(params=["scipy", pytest.param("lapx", marks=lapx)])
def solver(request: pytest.FixtureRequest) -> Solver:
    return solver_of(request.param)


@pytest.mark.parametrize("shape", [(3, 3), (2, 6), (6, 2), (1, 5), (5, 1), (0, 4), (4, 0)])
@pytest.mark.parametrize("values", ["distinct", "ties", "equal", "forbidden"])
def test_equals_exhaustive_search(solver: Solver, shape: tuple[int, int], values: str) -> None:
    """In the sum of the costs, which float32 must not round: 1e6 stands beside numbers around 1."""
    generator = np.random.default_rng(sum(shape))
    cost = generator.normal(size=shape).astype(np.float32)
    cost = {"distinct": cost, "ties": cost.round(), "equal": np.ones_like(cost)}.get(values, cost)
    if values == "forbidden":
        cost[generator.random(shape) < 0.5] = 1e6
    rows, columns = solver.solve(cost)
    assert len(rows) == len(columns) == min(shape) == len(set(columns.tolist()))
    assert (np.diff(rows) > 0).all()
    few = cost.astype(np.float64)
    few = few.T if shape[0] > shape[1] else few
    best = min(sum(few[i, q] for i, q in enumerate(some)) for some in permutations(range(max(shape)), min(shape)))
    assert cost.astype(np.float64)[rows, columns].sum() == pytest.approx(best, abs=1e-9)


def test_solves_in_float64(solver: Solver) -> None:
    """Columns 0 and 2 cost 3.25 above 2^20, columns 2 and 1 cost 3.3125, which float32 takes for the same."""
    cost = np.array([[1.125, 3.125, 1.0625], [2.0**20 + 2.5, 2.0**20 + 2.25, 2.0**20 + 2.125]], np.float32)
    assert solver.solve(cost)[1].tolist() == [0, 2]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("large", [1, 20, 1000])
def test_all_problems_in_threads(solver: Solver, threads: int, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pairs however many rows make a problem large; threads only where the solver allows them."""
    monkeypatch.setattr(assignment, "LARGE", large)
    used = set()

    def noting(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        used.add(threading.current_thread() is threading.main_thread())
        return solver.solve(cost)

    generator = np.random.default_rng(0)
    counts, queries = [0, 3, 12, 1, 30, 70], 40
    cost = generator.random((2, sum(counts), queries)) + generator.random(queries)
    copies = np.array([[0, 2, 1, 5, 1, 1], [0, 6, 3, 0, 1, 1]])
    found = assign_all(cost, counts, copies, replace(solver, solve=noting), threads)
    assert (found == assign_all(cost, counts, copies)).all()
    assert found.shape[1] == 6 + 12 + 5 + 30 + 40 + 18 + 36 + 30 + 40
    side_by_side = {1: {False}, 20: {False, True}, 1000: {True}}[large]
    assert used == (side_by_side if solver.parallel and threads == 2 else {True})


def test_copies(solver: Solver) -> None:
    """Two copies of two targets by hand: both want query 1, which is worth more to the first."""
    cost = np.array([[0.0, 1.0, 9.0, 9.0], [9.0, 0.5, 1.0, 2.0]])
    query, target = assign(cost, 2, solver=solver)
    assert list(zip(query.tolist(), target.tolist(), strict=True)) == [(0, 0), (1, 0), (2, 1), (3, 1)]


def pairs_of(match: Match) -> set[tuple[int, ...]]:
    return set(zip(*(x.tolist() for x in (match.row, match.image, match.query, match.target)), strict=True))


@lapx
def test_the_matcher_finds_the_same_pairs_with_both() -> None:
    preds, targets = random_set(rows=2, counts=[3, 0, 9, 30], queries=24)
    preds = replace(preds, valid=torch.arange(24)[None] < torch.tensor([24, 24, 20, 10])[:, None])
    costs = [SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)]
    matchers = [HungarianMatcher(costs=costs, copies={"main": [3, 1]}, solver=name) for name in ("scipy", "lapx")]
    expected, found = (pairs_of(matcher({"main": preds}, targets)["main"]) for matcher in matchers)
    assert found == expected and len(found) == 3 * 3 + 3 + 2 * 9 + 2 * 10


@lapx
def test_the_matcher_solves_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And in as many threads as PyTorch uses."""
    given = []
    monkeypatch.setattr(
        matcher_module, "assign_all", lambda *args: given.append(args[3:]) or assignment.assign_all(*args)
    )
    preds, targets = random_set(rows=1, counts=[2], queries=3)
    matcher = HungarianMatcher(costs=[L1Cost(weight=1.0)], solver="lapx")
    matcher({"main": preds}, targets)
    assert given == [(matcher.solver, torch.get_num_threads())] and matcher.solver is not SCIPY


@lapx
def test_a_config_names_the_solver() -> None:
    cfg = load_config("quickstart/digits.py", ["+model.criterion.matcher.solver=lapx"])
    assert instantiate(cfg.model.criterion.matcher).solver.parallel
    assert HungarianMatcher(costs=[L1Cost(weight=1.0)]).solver is SCIPY


def test_names_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match='model.criterion.matcher.solver is "hungarian", but only "scipy" and "lapx"'):
        HungarianMatcher(costs=[L1Cost(weight=1.0)], solver="hungarian")
    monkeypatch.setitem(sys.modules, "lap", None)
    with pytest.raises(ConfigError, match='lapx 0.11 or newer is not installed: pip install "lapx>=0.11"'):
        HungarianMatcher(costs=[L1Cost(weight=1.0)], solver="lapx")
