"""The numbers of a report, drawn from a seed: the form is right, the values are not those of any detector."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from align_detr.report.metrics import METRICS, OF_CLASSES

_SIZES = ("small", "medium", "large")
_EDGES = [k / 10 for k in range(11)]


def make_report(
    detectors: Sequence[str] = ("DINO", "Align-DINO"),
    classes: Sequence[str] = ("RBC", "WBC", "Platelets"),
    *,
    seed: int = 0,
    cases: int = 2,
    layers: int = 0,
    file_name: str = "photo_{}.jpg",
) -> dict[str, Any]:
    """Return a report on detectors and classes of these names; `cases` is the length of each gallery."""
    draws = np.random.default_rng(seed)
    made = [_detector(draws, name, classes, cases, layers, file_name) for name in detectors]
    differences = [_difference(draws, made[0], other) for other in made[1:]]
    truth = {"file": "instances_test.json", "images": 72, "objects": 945, "crowd_objects": 0, "classes": [*classes]}
    return {"format": 1, "ground_truth": truth, "detectors": made, "differences": differences}


def values(draws: np.random.Generator, names: Sequence[str] = tuple(METRICS)) -> dict[str, float | None]:
    """Return a value of each metric, in the range of its unit."""
    scale = {"points": 80.0, "share": 1.0, "number": 0.9}
    return {name: float(draws.uniform(0.02, 1) * scale[METRICS[name].unit]) for name in names}


def _detector(
    draws: np.random.Generator, name: str, classes: Sequence[str], cases: int, layers: int, file_name: str
) -> dict[str, Any]:
    names = [*OF_CLASSES, "AP75", "oce"]
    columns = {metric: [values(draws, [metric])[metric] for _ in classes] for metric in names}
    for column in columns.values():
        column[-1] = None
    return {
        "name": name,
        "file": f"{name}/coco_instances_results.json",
        "detections": 7200,
        "overall": values(draws),
        "per_class": columns,
        "per_size": {"small": dict.fromkeys(("AP", "olrp")), **{s: values(draws, ("AP", "olrp")) for s in _SIZES[1:]}},
        "thresholds": [*(float(draws.uniform(0.1, 0.5)) for _ in classes[1:]), None],
        "curves": _curves(draws),
        "errors": {kind: float(draws.uniform(0, 9)) for kind in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")},
        "unmatched": [_unmatched(draws, k, classes, file_name) for k in range(cases)],
        "misaligned": [_misaligned(draws, k, classes, file_name) for k in range(cases)],
        "duplicates": [_duplicates(draws, k, classes, file_name) for k in range(cases)],
        "layers": [values(draws) for _ in range(layers)] or None,
    }


def _curves(draws: np.random.Generator) -> dict[str, Any]:
    score = np.clip(draws.normal(0.5, 0.2, 2000), 0, 0.999)
    iou = np.clip(0.5 * score + 0.45 + draws.normal(0, 0.1, 2000), 0.5, 0.999)
    density, edges = np.histogramdd([score, iou], bins=[np.linspace(0, 1, 26)] * 2)
    recall = np.linspace(0, 1, 101)

    def shares() -> list[float]:
        return draws.dirichlet(np.arange(1, 11)).tolist()

    def reliability() -> dict[str, Any]:
        middle = np.arange(0.05, 1, 0.1)
        count = draws.integers(0, 500, 10)
        found = [value if n else None for value, n in zip(middle.tolist(), count, strict=True)]
        return {"confidence": found, "quality": [x and x**0.5 for x in found], "count": count.tolist()}

    return {
        "recall_best_regressed": {"multiples": [1, 2, 3, 5, 10], "values": np.sort(draws.uniform(0, 1, 5)).tolist()},
        "iou_histogram": {"edges": _EDGES, "best_regressed": shares(), "most_confident": shares()},
        "score_iou": {"edges": edges[0].tolist(), "density": density.astype(int).tolist()},
        "reliability": {"edges": _EDGES, **reliability(), "recalibrated": reliability()},
        "precision_recall": {
            "recall": recall.tolist(),
            "AP50": (1 - recall**3).tolist(),
            "AP75": (1 - recall).tolist(),
        },
    }


def _difference(draws: np.random.Generator, over: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    metrics = {}
    for name, value in of["overall"].items():
        difference = value - over["overall"][name]
        width = abs(float(draws.normal(0, 0.3))) * (abs(difference) + 0.01)
        metrics[name] = {"difference": difference, "low": difference - width, "high": difference + width}
    sentence = f"{of['name']} and {over['name']} differ."
    found = {"of": of["name"], "over": over["name"], "images": 72, "samples": 1000, "seed": 0, "metrics": metrics}
    return {**found, "sentence": sentence}


def _box(draws: np.random.Generator) -> list[float]:
    return [float(value) for value in (*draws.uniform(0, 400, 2), *draws.uniform(40, 80, 2))]


def _near(draws: np.random.Generator, box: Sequence[float]) -> list[float]:
    return [value + float(draws.normal(0, 6)) for value in box]


def _named(draws: np.random.Generator, k: int, classes: Sequence[str], file_name: str) -> dict[str, Any]:
    return {"image_id": k, "file_name": file_name.format(k), "class": classes[k % len(classes)], "object": _box(draws)}


def _misaligned(draws: np.random.Generator, k: int, classes: Sequence[str], file_name: str) -> dict[str, Any]:
    entry = _named(draws, k, classes, file_name)
    best = {"box": _near(draws, entry["object"]), "score": 0.07, "iou": 0.93, "rank": 31}
    confident = {"box": _near(draws, entry["object"]), "score": 0.81, "iou": 0.52, "rank": 1}
    return {**entry, "best": best, "confident": confident, "gap": 0.41}


def _duplicates(draws: np.random.Generator, k: int, classes: Sequence[str], file_name: str) -> dict[str, Any]:
    entry = _named(draws, k, classes, file_name)
    return {**entry, "boxes": [_near(draws, entry["object"]) for _ in range(3)], "scores": [0.8, 0.5, 0.4]}


def _unmatched(draws: np.random.Generator, k: int, classes: Sequence[str], file_name: str) -> dict[str, Any]:
    entry = _named(draws, k, classes, file_name)
    return {**{key: entry[key] for key in ("image_id", "file_name", "class")}, "score": 0.77, "box": entry["object"]}
