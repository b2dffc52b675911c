"""COCO's metrics by both libraries."""

import builtins
import math
from typing import Any

import numpy as np
import pytest

from align_detr.errors import ConfigError
from align_detr.evaluation import box_metrics
from align_detr.evaluation.libraries import BoxColumns, find_library, with_hotcoco, with_pycocotools

pytest.importorskip("hotcoco", reason="hotcoco is optional")


def draw(seed: int, *, images: int, classes: int, objects: int, detections: int) -> dict[str, Any]:
    """Return a task of `box_metrics`, with crowds, scores that repeat, and boxes of every size near objects and off."""
    rng = np.random.default_rng(seed)
    boxes = np.c_[rng.uniform(0, 200, (objects, 2)), np.exp(rng.uniform(1, 5.5, (objects, 2)))]
    annotations = [
        {
            "id": number,
            "image_id": int(rng.integers(images)) + 1,
            "category_id": int(rng.integers(classes)) + 1,
            "bbox": box.tolist(),
            "area": float(box[2] * box[3] * rng.uniform(0.3, 1)),
            "iscrowd": int(rng.random() < 0.1),
        }
        for number, box in enumerate(boxes, start=1)
    ]
    of = rng.integers(max(objects, 1), size=detections)
    base = boxes[of] if objects else np.tile([10.0, 10.0, 50.0, 50.0], (detections, 1))
    image = np.array([annotations[k]["image_id"] for k in of]) if objects else rng.integers(1, images + 1, detections)
    label = (
        np.array([annotations[k]["category_id"] - 1 for k in of]) if objects else rng.integers(0, classes, detections)
    )
    found = BoxColumns(
        image=image.astype(np.int64),
        label=label.astype(np.int64),
        box=base + rng.normal(0, 0.1, (detections, 4)) * base[:, [2, 3, 2, 3]],
        score=rng.random(detections).round(2),
    )
    return {"num_images": images, "num_classes": classes, "annotations": annotations, "detections": found}


@pytest.mark.parametrize("max_detections", [100, 300, 3])
@pytest.mark.parametrize(
    "size",
    [
        {"images": 1, "classes": 1, "objects": 1, "detections": 1},
        {"images": 6, "classes": 3, "objects": 40, "detections": 500},
        {"images": 2, "classes": 1, "objects": 130, "detections": 700},
        {"images": 3, "classes": 2, "objects": 20, "detections": 0},
        {"images": 3, "classes": 2, "objects": 0, "detections": 20},
    ],
    ids=str,
)
def test_both_libraries_give_the_same_numbers(size: dict[str, int], max_detections: int) -> None:
    for seed in range(3):
        task = draw(seed, **size)
        fast, reference = (
            box_metrics(**task, max_detections=max_detections, library=name) for name in ("hotcoco", "pycocotools")
        )
        assert list(fast.summary) == list(reference.summary)
        np.testing.assert_array_equal(list(fast.summary.values()), list(reference.summary.values()))
        np.testing.assert_array_equal(fast.per_class, reference.per_class)
        assert math.isnan(reference.summary["AP"]) == all(a["iscrowd"] for a in task["annotations"])


def test_libraries_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_library("auto") is with_hotcoco
    assert find_library("pycocotools") is with_pycocotools
    with pytest.raises(ConfigError, match=r'dataloader\.evaluator\.library is "fast": set it to "auto", "hotcoco" or'):
        find_library("fast")
    original = builtins.__import__

    def without_hotcoco(name: str, *args: Any, **options: Any) -> Any:
        if name == "hotcoco":
            raise ImportError("no such file")
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_hotcoco)
    assert find_library("auto") is with_pycocotools
    with pytest.raises(ConfigError, match=r"cannot be imported \(no such file\): pip install hotcoco"):
        find_library("hotcoco")
