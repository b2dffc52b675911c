"""Reading of COCO's files: what can be read gives right numbers, what cannot one sentence."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_detr.analysis import read_results, read_truth
from align_detr.errors import DatasetError

TRUTH = {
    "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
    "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 20], "area": 150, "iscrowd": 0},
        {
            "id": 2,
            "image_id": 3,
            "category_id": 5,
            "bbox": [1.5, 0, 10, 20],
            "iscrowd": 1,
            "segmentation": {"size": []},
        },
    ],
}
FOUND = [
    {"image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 20], "score": 0.5},
    {"image_id": 3, "category_id": 5, "bbox": [0, 0, 9, 20], "score": 1},
]


@pytest.fixture
def write(tmp_path) -> Callable[..., tuple[Path, Path]]:
    """Write ground truth and results, each by what it is or as a text; return their paths."""

    def write_both(truth: Any = TRUTH, found: Any = FOUND) -> tuple[Path, Path]:
        paths = tmp_path / "gt.json", tmp_path / "results.json"
        for path, content in zip(paths, (truth, found), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return paths

    return write_both


def changed(content: Any, *keys: Any, to: Any) -> Any:
    """Return a copy with another value at a path of keys; `...` removes it."""
    content = copy.deepcopy(content)
    part = content
    for key in keys[:-1]:
        part = part[key]
    if to is ...:
        del part[keys[-1]]
    else:
        part[keys[-1]] = to
    return content


def read(paths: tuple[Path, Path]):
    truth = read_truth(paths[0])
    return truth, read_results(paths[1], truth)


def test_files_become_columns(write):
    """Images and classes sorted by id; an object without an area has that of its box."""
    truth, found = read(write())
    assert (truth.image_ids, truth.file_names) == ([3, 7], ["a.jpg", "b.jpg"])
    assert (truth.category_ids, truth.class_names) == ([2, 5], ["cat", "dog"])
    objects = truth.objects
    assert objects.image.tolist() == [1, 0] and objects.label.tolist() == [0, 1]
    assert objects.area.tolist() == [150, 200] and objects.crowd.tolist() == [False, True]
    assert objects.box.tolist() == [[0, 0, 10, 20], [1.5, 0, 10, 20]]
    assert found.image.tolist() == [1, 0] and found.label.tolist() == [0, 1] and found.entry.tolist() == [0, 1]
    assert found.score.tolist() == [0.5, 1] and found.box.tolist() == [[0, 0, 10, 20], [0, 0, 9, 20]]


def test_what_a_file_may_hold_beside(write):
    """Text ids, a byte order mark, masks and other keys in results, no annotations, no detections."""
    masked = {**FOUND[0], "segmentation": {"size": [4, 4], "counts": "x"}, "id": 1}
    assert len(read(write(found=[masked, FOUND[1]]))[1]) == 2
    assert len(read(write(found="\ufeff[]"))[1]) == 0
    assert len(read(write(truth=changed(TRUTH, "annotations", to=...)))[0].objects) == 0
    named = json.loads(json.dumps(TRUTH).replace('"image_id": 7', '"image_id": "x"').replace('"id": 7', '"id": "x"'))
    truth, found = read(write(named, changed(FOUND, 0, "image_id", to="x")))
    assert truth.image_ids == [3, "x"] and found.image.tolist() == [1, 0]


NESTED = {**FOUND[0], "more": FOUND[0]}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            changed(FOUND, 1, "score", to=float("nan")),
            r"entry 1 \(from 0\) has score nan, but must have a finite number",
        ),
        (
            changed(FOUND, 1, "score", to=float("inf")),
            r"entry 1 \(from 0\) has score inf, but must have a finite number",
        ),
        (changed(FOUND, 1, "score", to="0.5"), r"entry 1 \(from 0\) has score '0.5', but must have a finite number"),
        (changed(FOUND, 1, "score", to=None), r"entry 1 \(from 0\) has no score, but must have a finite number"),
        (changed(FOUND, 1, "score", to=10**400), r"entry 1 \(from 0\) has score 1000\d+\.\.\., but must have a finite"),
        (changed(FOUND, 1, "score", to=...), r"entry 1 \(from 0\) has no score"),
        (changed(FOUND, 1, "score", to=90.5), r"entry 1 \(from 0\) has score 90.5, but scores must lie in \[0, 1\]"),
        (changed(FOUND, 0, "score", to=-0.1), r"entry 0 \(from 0\) has score -0.1, but scores must lie in \[0, 1\]"),
        (
            changed(FOUND, 1, "score", to=True),
            r"entry 1 \(from 0\) has score True, but must have a finite number",
        ),
        (changed(FOUND, 1, "bbox", 2, to=True), r"entry 1 \(from 0\) has bbox \[0, 0, True, 20\], but must"),
        (
            changed(FOUND, 1, "bbox", 2, to=float("nan")),
            r"entry 1 \(from 0\) has bbox \[0.0, 0.0, nan, 20.0\], but must",
        ),
        (changed(FOUND, 1, "bbox", to=[1, 2, 3]), r"entry 1 \(from 0\) has bbox \[1, 2, 3\], but must have 4 finite"),
        (
            changed(FOUND, 1, "bbox", 0, to="1"),
            r"entry 1 \(from 0\) has bbox \['1', 0, 9, 20\], but must have 4 finite",
        ),
        (changed(FOUND, 1, "bbox", to="1234"), r"entry 1 \(from 0\) has bbox '1234', but must have 4 finite numbers"),
        (changed(FOUND, 1, "bbox", to=...), r"entry 1 \(from 0\) has no bbox, but must have 4 finite numbers"),
        (changed(FOUND, 1, "image_id", to=4), r"entry 1 \(from 0\) has image_id 4, which is not in the ground truth"),
        (
            changed(FOUND, 1, "image_id", to="7"),
            r"entry 1 \(from 0\) has image_id '7', which is not in the ground truth",
        ),
        (changed(FOUND, 1, "image_id", to=[7]), r"entry 1 \(from 0\) has image_id \[7\], which is not in the ground"),
        (changed(FOUND, 1, "image_id", to=...), r"entry 1 \(from 0\) has no image_id: add it"),
        (
            changed(FOUND, 1, "category_id", to=1),
            r"entry 1 \(from 0\) has category_id 1, which is not in the ground truth",
        ),
        (changed(FOUND, 1, "category_id", to=...), r"entry 1 \(from 0\) has no category_id: add it"),
        ([*FOUND, 7], r"2 \(from 0\) of the entries is 7, but must be an object"),
        ([*FOUND, 2], r"2 \(from 0\) of the entries is 2, but must be an object"),
        ([NESTED], "an entry holds another"),
        (TRUTH, "is no COCO results file: it must be a list"),
        (FOUND[0], "is no COCO results file: it must be a list"),
        ("[{", "is no JSON file"),
        ("", "is no JSON file"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "1" * 5000 + "]", "is no JSON file"),
    ],
)
def test_results_that_cannot_be_used_are_one_sentence(write, found, sentence):
    with pytest.raises(DatasetError, match=sentence) as caught:
        read(write(found=found))
    assert "results.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        (FOUND, "is no COCO annotation file"),
        (changed(TRUTH, "categories", to=...), "is no COCO annotation file"),
        (changed(TRUTH, "images", to=[]), "has no images"),
        (changed(TRUTH, "images", 1, "id", to=7), "two of the images have the id 7"),
        (changed(TRUTH, "categories", 1, "id", to=5), "two of the categories have the id 5"),
        (changed(TRUTH, "images", 1, "id", to=...), r"1 \(from 0\) of the images has the id None"),
        (changed(TRUTH, "images", 1, to=5), r"1 \(from 0\) of the images is 5, but must be an object"),
        (changed(TRUTH, "annotations", to=None), "annotations must be a list, but is None"),
        (changed(TRUTH, "annotations", 1, to=5), r"1 \(from 0\) of the annotations is 5, but must be an object"),
        (
            changed(TRUTH, "annotations", 1, "image_id", to=4),
            r"annotation 1 \(from 0\) has image_id 4, which is not in",
        ),
        (changed(TRUTH, "annotations", 1, "category_id", to=...), r"annotation 1 \(from 0\) has no category_id"),
        (changed(TRUTH, "annotations", 1, "bbox", to=...), r"annotation 1 \(from 0\) has no bbox"),
        (changed(TRUTH, "annotations", 1, "bbox", 0, to=float("nan")), r"annotation 1 \(from 0\) has bbox \[nan"),
        (
            changed(TRUTH, "annotations", 0, "area", to="9"),
            r"annotation 0 \(from 0\) has area '9', but must have a finite",
        ),
        (
            changed(TRUTH, "annotations", 0, "iscrowd", to="0"),
            r"annotation 0 \(from 0\) has iscrowd '0', but must have 0",
        ),
    ],
)
def test_ground_truth_that_cannot_be_used_is_one_sentence(write, truth, sentence):
    with pytest.raises(DatasetError, match=sentence) as caught:
        read(write(truth=truth))
    assert "gt.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DatasetError, match=r"gt.json cannot be read \(No such file or directory\): name a file."):
        read_truth(tmp_path / "gt.json")
