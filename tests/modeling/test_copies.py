"""The copies of targets: how many there are, and what is refused."""

import re

import pytest
import torch

from align_detr.errors import ConfigError
from align_detr.modeling.matcher import HungarianMatcher, L1Cost
from align_detr.modeling.matching.limits import Limits
from align_detr.structures import Match
from support.inputs import random_set

pytestmark = pytest.mark.usefixtures("solver")


@pytest.mark.parametrize(("count", "wanted", "expected"), [(1, 3, 3), (2, 3, 2), (4, 3, 1), (9, 3, 1)])
def test_copies_are_bounded_in_each_image(matcher: HungarianMatcher, count: int, wanted: int, expected: int) -> None:
    """10 queries: at most 5 may go to copies; 1 target x 3, 2 targets x 2, 4 and 9 targets x 1."""
    matcher.limits = Limits({"main": wanted})
    preds, targets = random_set(rows=1, counts=[count], queries=10)
    match = matcher({"main": preds}, targets)["main"]
    assert match.target.bincount(minlength=count).tolist() == [expected] * count
    assert len(set(match.query.tolist())) == count * expected


@pytest.mark.parametrize(("count", "expected"), [(1, 3), (2, 2), (3, 1), (5, 1)])
def test_padding_queries_do_not_count_for_copies(matcher: HungarianMatcher, count: int, expected: int) -> None:
    """The second image has 8 of the 20 queries, so that copies take at most 4. Bounded by all 20, three targets
    would want 9, and five 10.
    """
    matcher.limits = Limits({"main": 3})
    preds, targets = random_set(rows=2, counts=[1, count], queries=20)
    preds.valid = torch.arange(20) < torch.tensor([[20], [8]])
    match = matcher({"main": preds}, targets)["main"]
    for row in (0, 1):
        padded = (match.row == row) & (match.image == 1)
        assert match.target[padded].bincount(minlength=count).tolist() == [expected] * count
        assert (match.query[padded] < 8).all()
        assert ((match.row == row) & (match.image == 0)).sum() == 3
    # Where `allowed` says which pairs may be, all queries count: 20 // (2 n) copies, as far as there are queries.
    preds.allowed = torch.ones(2, 20, count, dtype=torch.bool)
    match = matcher({"main": preds}, targets)["main"]
    assert ((match.row == 0) & (match.image == 1)).sum() == min(8, count * min(3, 10 // count))


@pytest.mark.parametrize("copies", [3, *({"main": k} for k in (0, 2.5, [3, -1], [1.0], None, "3"))])
def test_copies_are_whole_numbers(copies: object) -> None:
    with pytest.raises(ConfigError, match="matcher.copies"):
        HungarianMatcher(costs=[L1Cost(weight=1.0)], copies=copies)


def test_known_matches_have_no_copies(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[1], queries=3)
    preds.match = Match(*(torch.zeros(1, dtype=torch.int64) for _ in range(4)))
    matcher.limits = Limits({"dn": 2})
    with pytest.raises(ConfigError, match="'dn', whose matches are known"):
        matcher({"dn": preds}, targets)


def test_copies_of_a_layer_hold_for_its_groups(matcher: HungarianMatcher) -> None:
    """Two layers of two groups, 2 copies in the first layer."""
    preds, targets = random_set(rows=4, counts=[2], queries=8)
    preds.groups, matcher.limits = 2, Limits({"main": [2, 1]})
    assert matcher({"main": preds}, targets)["main"].row.bincount().tolist() == [4, 4, 2, 2]
    matcher.limits = Limits({"main": [2, 1, 1, 1]})
    with pytest.raises(ConfigError, match="names 4 layers, but the model predicts 2"):
        matcher({"main": preds}, targets)


def test_copies_of_a_set_that_is_not_there(matcher: HungarianMatcher) -> None:
    preds, targets = random_set(rows=1, counts=[2], queries=8)
    matcher.limits = Limits({"enc": 2})
    with pytest.raises(ConfigError, match="names the set 'enc', but the model predicts main"):
        matcher({"main": preds}, targets)


@pytest.mark.parametrize("copies", [3, [], [3, 1], "main"])
def test_copies_without_the_name_of_a_set(copies: object) -> None:
    with pytest.raises(ConfigError, match=rf"copies is {re.escape(repr(copies))}, .*\.copies\.main=3, for example\."):
        Limits(copies)


def test_a_set_brings_its_number_of_copies(matcher: HungarianMatcher) -> None:
    """12 queries: 3 for each of two targets, of 4 that the set asks for."""
    preds, targets = random_set(rows=2, counts=[2, 1], queries=12)
    preds.copies = 4
    match = matcher({"o2m": preds}, targets)["o2m"]
    assert match.target[match.image == 0].bincount().tolist() == [6, 6] and (match.image == 1).sum() == 8
    matcher.limits = Limits({"o2m": 4})
    assert torch.equal(matcher({"o2m": preds}, targets)["o2m"].query, match.query)
    matcher.limits = Limits({"o2m": 3})
    with pytest.raises(ConfigError, match=r"copies.o2m is 3, but model\.queries\.copies, .* 'o2m', is 4: remove"):
        matcher({"o2m": preds}, targets)
    matcher.limits = Limits({"o2m": [4, 4]})
    assert torch.equal(matcher({"o2m": preds}, targets)["o2m"].query, match.query)
    matcher.limits = Limits({"o2m": [4, 3]})
    with pytest.raises(ConfigError, match=r"copies.o2m is \[4, 3\], but model\.queries\.copies, .* is 4: remove"):
        matcher({"o2m": preds}, targets)
