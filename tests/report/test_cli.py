"""`align-detr report`: names, options and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from align_detr.cli import main as cli
from align_detr.cli.report import names_of
from support.report import make_report


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/dino.json", "b/align.json"], ["dino", "align"]),
        (["a/dino.json", "b/dino.json"], ["a", "b"]),
        (["out/A/inference/coco_instances_results.json"], ["A"]),
        (["x/A/results.json", "y/A/results.json"], ["A (1)", "A (2)"]),
        (["a/dino.json", "b/dino.json", "c.json"], ["a", "b", "c"]),
    ],
)
def test_names_come_from_files_or_folders(files: list[str], names: list[str]) -> None:
    assert names_of(files) == names


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main(["report", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_a_page_is_drawn_from_the_json_of_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "numbers.json").write_text(json.dumps(make_report(cases=1)))
    rows = [{"iteration": 9, "bbox/AP": 33.25}, {"iteration": 19, "bbox/AP": 35.5}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    metrics = [tmp_path / "metrics.json"] * 2
    out, kept = tmp_path / "new" / "page.html", tmp_path / "kept.json"
    status, printed, _ = run(capsys, tmp_path / "numbers.json", "--out", out, "--json", kept, "--metrics", *metrics)
    assert status == 0 and printed.startswith(f"The page is {out}, its ")
    assert (tmp_path / "new" / "page_figures" / "training_AP.png").is_file()
    assert "Without --images the boxes" in out.read_text(encoding="utf-8")
    training: list[dict[str, Any]] = json.loads(kept.read_text())["training"]
    assert [(each["name"], each["AP"]) for each in training] == [
        ("DINO", [33.25, 35.5]),
        ("Align-DINO", [33.25, 35.5]),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.json", "b.json"], "Results files alone have no ground truth: name its annotation file, --gt FILE."),
        (["gone.json"], "gone.json cannot be read (No such file or directory): correct its path."),
        (["list.json"], "list.json is a results file, which has no ground truth: name its annotation file, --gt FILE."),
        (["dict.json"], "dict.json is neither a list of detections nor the JSON of a report of format 1"),
        (["text.json"], "text.json is no JSON"),
        (["a.json", "--names", "A"], "--names are for results files: name their ground truth, --gt FILE."),
        (["a.json", "--gt", "g", "--names", "A", "B"], "--names has 2 names for 1 results files"),
        (["a.json", "b.json", "--gt", "g", "--names", "A", "A"], "--names has A several times"),
        (["a.json", "--gt", "g", "--samples", "0"], "--samples 0 is below 1: give a positive number."),
        (["report.json", "--metrics", "m"], "--metrics has 1 files for 2 detectors: name one of each, in their order."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[]")
    Path("dict.json").write_text("{}")
    Path("text.json").write_text("no json")
    Path("report.json").write_text(json.dumps(make_report(cases=0)))
    status, printed, error = run(capsys, *arguments)
    assert status == 2 and printed == "" and not Path("report.html").exists()
    assert error.startswith(f"align-detr report: {sentence}") and len(error.splitlines()) == 1
