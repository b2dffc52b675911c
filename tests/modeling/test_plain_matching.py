"""The matcher against the plain lines in the docstring of `modeling/matching/`, run as they stand there."""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch

from align_detr.modeling import matching
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.structures import Match, Predictions, Targets
from support.inputs import random_set

Pairs = set[tuple[int, int, int, int]]


def plain_lines() -> str:
    """Return the indented block of the docstring, after its `::`."""
    _, block = matching.__doc__.split("::\n", 1)
    lines = block.strip("\n").splitlines()
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("    "))
    return textwrap.dedent("\n".join(lines[:end]))


def compile_match(text: str) -> Callable[[Predictions, Targets, list[int]], Pairs]:
    names: dict = {}
    exec(text, names)
    return names["match"]


@dataclass
class Problem:
    """What both are given."""

    preds: Predictions
    targets: Targets
    wanted: list[int]  # copies per decoder layer


@dataclass
class Kind:
    """What a kind of problem is drawn from."""

    queries: tuple[int, int] = (8, 24)
    objects: tuple[int, int] = (0, 5)
    groups: int = 1
    copies: tuple[int, int] = (1, 1)
    padded: bool = False
    forbidden: bool = False


KINDS = {
    "one copy": Kind(),
    "one object": Kind(objects=(1, 1)),
    "no object": Kind(objects=(0, 0)),
    "more objects than queries": Kind(queries=(1, 6), objects=(4, 12)),
    "copies": Kind(copies=(1, 6)),
    "copies in a crowd": Kind(queries=(8, 12), objects=(3, 14), copies=(1, 6)),
    "groups": Kind(groups=3, copies=(1, 3)),
    "padding": Kind(padded=True, copies=(1, 4)),
    "padding in a crowd": Kind(queries=(6, 10), objects=(4, 10), padded=True, copies=(1, 4)),
    "forbidden": Kind(forbidden=True, copies=(1, 3)),
    "all": Kind(objects=(0, 9), groups=2, padded=True, forbidden=True, copies=(1, 4)),
}


def draw(kind: Kind, softmax: bool, seed: int) -> Problem:
    """Return two layers of up to three images."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    counts, queries = [number(*kind.objects) for _ in range(number(1, 3))], number(*kind.queries)
    preds, targets = random_set(rows=2 * kind.groups, counts=counts, queries=queries, softmax=softmax)
    preds.groups = kind.groups
    if kind.padded:
        real = torch.tensor([number(1, queries) for _ in counts])
        preds.valid = torch.arange(queries) < real[:, None]
    if kind.forbidden:
        preds.allowed = torch.rand(len(counts), queries, targets.labels.shape[1], generator=generator) < 0.6
    return Problem(preds, targets, [number(*kind.copies) for _ in range(2)])


def problems(kind: str, number: int) -> Iterator[Problem]:
    for seed in range(number):
        yield draw(KINDS[kind], softmax=seed % 2 == 0, seed=seed)


def pairs_of(match: Match) -> Pairs:
    return set(zip(*(x.tolist() for x in (match.row, match.image, match.query, match.target)), strict=True))


def matched(problem: Problem) -> Pairs:
    of_class = SoftmaxCost(weight=1.0) if problem.preds.softmax else FocalCost(weight=2.0)
    matcher = HungarianMatcher(
        costs=[of_class, L1Cost(weight=5.0), GIoUCost(weight=2.0)], copies={"main": problem.wanted}
    )
    return pairs_of(matcher({"main": problem.preds}, problem.targets)["main"])


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize("kind", KINDS)
def test_the_matcher_equals_the_plain_lines(kind: str) -> None:
    match = compile_match(plain_lines())
    found = 0
    for problem in problems(kind, 20):
        with torch.no_grad():
            expected = match(problem.preds, problem.targets, problem.wanted)
        assert matched(problem) == expected
        found += len(expected)
    assert (found == 0) == (kind == "no object")


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("return inter / union - (hull - union) / hull", "return inter / union"),
        ("return -logits.softmax(-1)[:, labels]", "return logits.softmax(-1)[:, labels]"),
        ("0.75 * p**2", "0.25 * p**2"),
        ("+ 5 * l1", "+ l1"),
        ("allowed &= preds.valid[image, :, None]", "pass"),
        ("usable = preds.valid[image].sum().item()", "pass"),
        ("allowed & preds.allowed[image, :, :n]", "allowed"),
        ("usable // (2 * n)", "usable // n"),
        ("max(1, min(wanted", "max(2, min(wanted"),
        ("+ len(boxes) * (cost.max() - cost.min()) + 1", ""),
        ("wanted[row // preds.groups]", "wanted[-1]"),
    ],
)
def test_every_plain_line_counts(line: str, other: str) -> None:
    """With one of them changed, the matcher no longer equals them."""
    text = plain_lines()
    assert text.count(line) == 1
    match = compile_match(text.replace(line, other))
    with torch.no_grad():
        assert any(
            match(problem.preds, problem.targets, problem.wanted) != matched(problem)
            for kind in KINDS
            for problem in problems(kind, 30)
        )
