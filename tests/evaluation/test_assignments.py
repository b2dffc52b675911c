"""Numbers of a training's assignments: by hand, against slow formulas, and against what training logs."""

import dataclasses
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from align_detr.errors import ConfigError
from align_detr.evaluation.assignment_numbers import (
    describe_assignments,
    describe_layer,
    instability,
    instability_of_layers,
    query_use,
)
from align_detr.evaluation.assignments import COLUMNS, Assignments, joined, record_assignments
from align_detr.evaluation.validation_loss import LossEvaluator
from align_detr.modeling import criterion
from align_detr.modeling.events import POSITIVES
from support.detectors import single_scale_detector, tiny_detr, tiny_dino, tiny_tsp_fcos
from support.inputs import image_input


def assignments(
    rows: list[tuple[int, ...]], counts: list[int], *, layers: int = 1, groups: int = 1, queries: int = 5
) -> Assignments:
    """Pairs (layer, group, image, query, target, rank) whose IoU is 1 / (rank + 1), score half of it, weight its
    square.
    """
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    iou = 1 / (columns[5] + 1)
    return Assignments(
        *columns,
        iou,
        iou / 2,
        iou**2,
        counts=np.array(counts),
        layers=layers,
        groups=groups,
        queries=queries,
        solved=True,
    )


def one_to_one(matches: dict[tuple[int, int], int], counts: list[int]) -> Assignments:
    """One layer, from {(image, target): query}."""
    return assignments([(0, 0, image, query, target, 0) for (image, target), query in matches.items()], counts)


def test_instability_by_hand() -> None:
    """Image 0 has two objects that exchange their queries, image 1 one that takes a free query, image 2 one that stays:
    3 of 4 objects change; the queries 0 and 1 change in image 0, 2 and 3 in image 1.
    """
    before = one_to_one({(0, 0): 0, (0, 1): 1, (1, 0): 2, (2, 0): 4}, [2, 1, 1])
    after = one_to_one({(0, 0): 1, (0, 1): 0, (1, 0): 3, (2, 0): 4}, [2, 1, 1])
    assert instability(before, after) == {"objects": 3 / 4, "queries_per_image": 4 / 3}
    assert instability(before, before) == {"objects": 0.0, "queries_per_image": 0.0}


def test_instability_of_unmatched_objects() -> None:
    """An object that loses its query changes, and so does that query; one that never has a query does not count."""
    before = one_to_one({(0, 0): 0, (0, 1): 1}, [3])
    after = one_to_one({(0, 0): 0}, [3])
    assert instability(before, after) == instability(after, before) == {"objects": 0.5, "queries_per_image": 1.0}


def test_instability_of_more_positives() -> None:
    """Queries {0, 1, 2} and {2} share the one that the smaller set has; of {0, 1} and {1, 3} half is common."""
    three = assignments([(0, 0, 0, query, 0, query) for query in (0, 1, 2)], [1])
    assert instability(three, one_to_one({(0, 0): 2}, [1])) == {"objects": 0.0, "queries_per_image": 2.0}
    first, second = (assignments([(0, 0, 0, q, 0, k) for k, q in enumerate(both)], [1]) for both in ((0, 1), (1, 3)))
    assert instability(first, second) == {"objects": 0.5, "queries_per_image": 2.0}


def test_instability_of_groups() -> None:
    """Query 1 of one group is not query 1 of another."""
    first, second = (assignments([(0, group, 0, 1, 0, 0)], [1], groups=2) for group in (0, 1))
    assert instability(first, second) == {"objects": 1.0, "queries_per_image": 2.0}


def test_no_objects_and_other_images() -> None:
    nothing = one_to_one({}, [0, 0])
    assert instability(nothing, nothing) == {"objects": None, "queries_per_image": 0.0}
    assert describe_layer(nothing) == {
        "positives_per_object": None, "unmatched": None, "iou": None, "score": None, "ranks": [],
    }  # fmt: skip
    assert query_use(nothing) == {"matches": [0] * 5, "used": 0.0, "entropy": None}
    with pytest.raises(ValueError, match="of different images"):
        instability(nothing, one_to_one({}, [0, 1]))
    with pytest.raises(ValueError, match="have 1 and 2 layers"):
        instability_of_layers(nothing, dataclasses.replace(nothing, layers=2))


def test_query_use_by_hand() -> None:
    """Four pairs, two of them of query 0: entropy ln 4 - (1/2) ln 2 = 1.5 ln 2 of at most 2 ln 2."""
    pairs = one_to_one({(0, 0): 0, (0, 1): 1, (1, 0): 0, (1, 1): 4}, [2, 2])
    assert query_use(pairs) == {"matches": [2, 1, 0, 0, 1], "used": 3 / 5, "entropy": pytest.approx(0.75)}
    everyone = one_to_one({(0, k): k for k in range(5)}, [5])
    assert query_use(everyone)["entropy"] == pytest.approx(1)
    alone = one_to_one({(image, 0): 3 for image in range(4)}, [1] * 4)
    assert query_use(alone) == {"matches": [0, 0, 0, 4, 0], "used": 1 / 5, "entropy": 0.0}


def test_positives_and_ranks_by_hand() -> None:
    """Object 0 has three queries, object 1 one and object 2 none."""
    pairs = assignments([(0, 0, 0, 0, 0, 2), (0, 0, 0, 3, 0, 0), (0, 0, 0, 1, 0, 1), (0, 0, 0, 2, 1, 0)], [3])
    found = describe_layer(pairs)
    assert found["positives_per_object"] == 4 / 3 and found["unmatched"] == pytest.approx(1 / 3)
    assert found["iou"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 3) / 4)
    assert found["ranks"] == [
        {"share": 0.5, "weight": 1.0, "iou": 1.0, "score": 0.5},
        {"share": 0.25, "weight": 0.25, "iou": 0.5, "score": 0.25},
        {"share": 0.25, "weight": pytest.approx(1 / 9), "iou": pytest.approx(1 / 3), "score": pytest.approx(1 / 6)},
    ]


def random_assignments(seed: int, copies: int) -> Assignments:
    """Two layers and groups of 7 queries in four images, each query of a layer and group matched at most once."""
    rng = np.random.default_rng(seed)
    counts = [3, 0, 2, 5]
    rows = []
    for layer, group, (image, count) in ((a, b, c) for a in range(2) for b in range(2) for c in enumerate(counts)):
        queries = rng.permutation(7).tolist()
        for target in range(count):
            number = min(len(queries), int(rng.integers(0, copies + 1)))
            rows += [(layer, group, image, queries.pop(), target, rank) for rank in range(number)]
    return assignments(rows, counts, layers=2, groups=2, queries=7)


@pytest.mark.parametrize("seed", range(20))
def test_against_slow_formulas(seed: int) -> None:
    """Instability from sets per object and a list per query; entropy and positives by counting."""
    first, second = random_assignments(seed, 1 + seed % 3), random_assignments(100 + seed, 2)
    for layer, found in enumerate(instability_of_layers(first, second)):
        owners: list[dict[tuple, int]] = [{}, {}]
        queries: list[dict[tuple, set]] = [defaultdict(set), defaultdict(set)]
        for k, each in enumerate((first, second)):
            for row in zip(*(getattr(each, name).tolist() for name in COLUMNS[:5]), strict=True):
                if row[0] == layer:
                    _, group, image, query, target = row
                    owners[k][image, group, query] = target
                    queries[k][image, target].add((group, query))
        changed = sum(owners[0].get(q, -1) != owners[1].get(q, -1) for q in {*owners[0], *owners[1]})
        objects = {*queries[0], *queries[1]}
        changes = [
            1 - len(queries[0][x] & queries[1][x]) / max(1, min(len(queries[0][x]), len(queries[1][x])))
            for x in objects
        ]
        assert found["objects"] == pytest.approx(sum(changes) / len(objects))
        assert found["queries_per_image"] == changed / 4

        pairs = first.of_layer(layer)
        times = Counter(zip(pairs.group.tolist(), pairs.query.tolist(), strict=True))
        entropy = -sum(n / len(pairs.query) * math.log(n / len(pairs.query)) for n in times.values())
        assert query_use(pairs)["entropy"] == pytest.approx(entropy / math.log(min(len(pairs.query), 14)))
        assert describe_layer(pairs)["positives_per_object"] == len(pairs.query) / 10


def test_joined_batches_number_their_images_on() -> None:
    first, second = one_to_one({(0, 0): 1}, [1, 0]), one_to_one({(0, 1): 2}, [2])
    both = joined([first, dataclasses.replace(second, queries=9)])
    assert both.image.tolist() == [0, 2] and both.counts.tolist() == [1, 0, 2] and both.queries == 9
    assert both.object.tolist() == [0, 2], "of three objects in all"


def images(*counts: int) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(96, 96, count) for count in counts]


@pytest.mark.parametrize("kind", ["detr", "group", "dino"])
def test_a_model_has_the_positives_that_training_logs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every set, on average over its layers; the weights by rank are Align-DETR's, and 1 without it."""
    build = {"detr": tiny_detr, "group": lambda: single_scale_detector("group"), "dino": lambda: tiny_dino(align=True)}
    model, counts = build[kind]().train(), [[2, 1], [0], [2]]
    batches = [images(*each) for each in counts]
    numbers = describe_assignments(record_assignments(model, batches) or {}, learned=kind != "dino")
    assert set(numbers) == ({"main", "enc", "dn"} if kind == "dino" else {"main"})
    assert model.training

    pairs: Counter[str] = Counter()  # per layer
    for batch, each in zip(batches, counts, strict=True):
        logged: dict[str, float] = {}
        monkeypatch.setattr(criterion, "log_scalar", logged.__setitem__)
        LossEvaluator(model).process(batch, [])
        pairs.update({name: value * sum(each) for name, value in logged.items()})
    for name, of_set in numbers.items():
        positives = [layer["positives_per_object"] for layer in of_set["layers"]]
        key = POSITIVES if name == "main" else f"{POSITIVES}_{name}"
        assert (of_set["objects"], of_set["images"]) == (5, 4)
        assert sum(positives) / len(positives) == pytest.approx(pairs[key] / 5)
        assert [layer["unmatched"] for layer in of_set["layers"]] == [0.0] * len(positives)
        for rank, row in ((rank, row) for layer in of_set["layers"] for rank, row in enumerate(layer["ranks"])):
            assert row["weight"] == pytest.approx(math.exp(-rank / 1.5) if kind == "dino" else 1.0)
    of_main = numbers["main"]
    positives = [layer["positives_per_object"] for layer in of_main["layers"]]
    # Align-DETR's k = 3 in the first layer holds where the image has one object; of eight queries, two have at most 4
    assert positives == {"detr": [1.0, 1.0], "group": [3.0, 3.0], "dino": [(3 + 2 * 4) / 5, 1.0]}[kind]
    assert of_main["queries_are_learned"] == (kind != "dino")
    assert sum(of_main["query_use"]["matches"]) == 5 * positives[-1]
    assert len(of_main["instability"]) == 1


def test_a_model_without_matcher_is_refused() -> None:
    with pytest.raises(ConfigError, match="TSPFCOS is no DETR with a matcher"):
        record_assignments(tiny_tsp_fcos(), [])
