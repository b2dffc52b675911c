"""AP of trainings, from metrics.json."""

import json
from pathlib import Path

import pytest

from align_detr.errors import DatasetError
from align_detr.report.training import read_training


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_evaluations_are_read_in_their_order(tmp_path: Path) -> None:
    """Lines of losses have no AP; an iteration that was evaluated again has its last values; null stays."""
    path = lines(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 2.0},
        {"iteration": 99, "bbox/AP": 5.0, "bbox/AP50": 9.0},
        {"iteration": 49, "bbox/AP": 1.0, "bbox/AP50": 2.0},
        {"iteration": 99, "bbox/AP": 6.0, "bbox/AP50": None},
    )
    (run,) = read_training(path, "DINO")
    assert run == {
        "name": "DINO",
        "file": "metrics.json",
        "iterations": [49, 99],
        "AP": [1.0, 6.0],
        "AP50": [2.0, None],
    }


def test_several_test_sets_are_several_curves(tmp_path: Path) -> None:
    row = {"iteration": 9, "day/bbox/AP": 1.0, "night/bbox/AP": 2.0, "night/bbox/AP50": 3.0}
    runs = read_training(lines(tmp_path / "metrics.json", row), "DINO")
    assert [(run["name"], run["AP"], run["AP50"]) for run in runs] == [
        ("DINO, day", [1.0], [None]),
        ("DINO, night", [2.0], [3.0]),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist: correct its path"),
        ('{"iteration": 1, "total_loss": 2}\n', 'has no "bbox/AP", so it tells nothing of an evaluation'),
        ("[1]\n", "does not hold one JSON object per line: name the metrics.json"),
        ("not json\n", "does not hold one JSON object per line"),
        ("", 'has no "bbox/AP"'),
    ],
)
def test_other_files_are_one_sentence(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=sentence):
        read_training(path, "DINO")
