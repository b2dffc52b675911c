"""`align-detr report`: names, options and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from align_detr.analysis.bootstrap import SAMPLES
from align_detr.analysis.report import name_files
from align_detr.cli import main as cli
from align_detr.cli.report import build_parser
from support.page import read_page
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
    assert name_files(files) == names


BOX = [10.0, 10.0, 20.0, 20.0]
TRUTH = {
    "images": [{"id": k, "file_name": f"{k}.png", "width": 64, "height": 64} for k in range(2)],
    "categories": [{"id": 1, "name": "cell"}, {"id": 7, "name": "<i>none</i>"}],
    "annotations": [
        {"id": k, "image_id": k, "category_id": 1, "bbox": BOX, "area": 400, "iscrowd": 0} for k in range(2)
    ],
}


def found(image: int, score: float, box: list[float]) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score}


# the exact box of each image scores .3; in BAD another box, of IoU 10 x 20 / (2 x 400 - 200) = 1/3, scores .9
GOOD = [found(k, 0.3, BOX) for k in range(2)]
BAD = GOOD + [found(k, 0.9, [20.0, 10.0, 20.0, 20.0]) for k in range(2)]


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


def test_results_files_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that can be worked out: precision is 1 with GOOD, and 1/2 at every recall with BAD, whose exact box is
    second; perfect scores make it 1 again. Layers are results files, too.
    """
    (tmp_path / "gt.json").write_text(json.dumps(TRUTH))
    for name, rows in (("good", GOOD), ("bad", BAD), ("layer_0", BAD), ("layer_1", BAD), ("layer_2", GOOD)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    files = [tmp_path / "bad.json", tmp_path / "good.json"]
    out, kept, layers = tmp_path / "report.html", tmp_path / "report.json", [tmp_path, tmp_path]
    status, _, error = run(
        capsys, *files, "--gt", tmp_path / "gt.json", "--out", out, "--json", kept, "--layers", *layers, "--samples", 20
    )
    assert (status, error) == (0, "")
    report = json.loads(kept.read_text())
    bad, good = report["detectors"]
    assert [bad["name"], good["name"]] == ["bad", "good"]
    assert [x["overall"]["AP"] for x in (bad, good)] == pytest.approx([50, 100])
    assert [x["overall"]["oracle_gap"] for x in (bad, good)] == pytest.approx([50, 0])
    assert [x["overall"]["recall_best_regressed"] for x in (bad, good)] == [0, 1]
    assert [layer["AP"] for layer in bad["layers"]] == pytest.approx([50, 100])
    assert [case["gap"] for case in bad["misaligned"]] == pytest.approx([2 / 3, 2 / 3]) and good["misaligned"] == []
    page = read_page(out.read_text(encoding="utf-8"))
    assert page.faults == [] and "good has the highest AP, 100.0" in page.by_id("summary").text
    assert "<i>none</i>" in [x.text for x in page.all("th")]


@pytest.mark.parametrize("rows", [[], [found(0, 0.5, [40.0, 40.0, 5.0, 5.0])]])
def test_nothing_found_is_a_page(rows: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(TRUTH))
    (tmp_path / "none.json").write_text(json.dumps(rows))
    out = tmp_path / "report.html"
    status, _, error = run(capsys, tmp_path / "none.json", "--gt", tmp_path / "gt.json", "--out", out)
    assert (status, error) == (0, "") and "none has AP 0.0 on 2 images" in out.read_text(encoding="utf-8")


def test_the_help_states_the_default_of_the_library() -> None:
    assert build_parser().parse_args(["a"]).samples == SAMPLES


def test_the_json_of_a_report_may_be_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "numbers.json"
    kept.write_text(json.dumps(make_report(cases=0)))
    before = json.loads(kept.read_text())
    assert run(capsys, kept, "--out", tmp_path / "page.html", "--json", kept)[0] == 0
    assert json.loads(kept.read_text()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.json", "b.json"], "Results files alone have no ground truth: name its annotation file, --gt FILE."),
        (["gone.json"], "gone.json cannot be read (No such file or directory): correct its path."),
        (["list.json"], "list.json is a results file, which has no ground truth: name its annotation file, --gt FILE."),
        (["dict.json"], "dict.json is neither a list of detections nor the JSON of a report of format 1"),
        (["text.json"], "text.json is no JSON"),
        (["cut.json"], "cut.json is no whole report, ground_truth has no classes: write it anew with --json."),
        (["bare.json"], "bare.json is no whole report, detectors[0] has no overall: write it anew with --json."),
        (["empty.json"], "empty.json is no whole report, detectors[0] has no name: write it anew with --json."),
        (["a.json", "--names", "A"], "--names goes with results files: name their ground truth, --gt FILE."),
        (["a.json", "--samples", "9"], "--samples goes with results files: name their ground truth, --gt FILE."),
        (["a.json", "--max-detections", "9"], "--max-detections goes with results files: name their ground truth"),
        (["a.json", "--gt", "g", "--names", "A", "B"], "--names has 2 names for 1 results files"),
        (["a.json", "b.json", "--gt", "g", "--names", "A", "A"], "The names of the results are A, A: give each"),
        (["a.json", "--gt", "g", "--max-detections", "0"], "--max-detections 0 is below 1: give a larger number."),
        (["a.json", "--gt", "g", "--seed", "-1"], "--seed -1 is below 0: give a larger number."),
        (["report.json", "--metrics", "m"], "--metrics has 1 entries for 2 detectors: name one of each, in order."),
        (["list.json", "--gt", "gone.json"], "gone.json cannot be read (No such file or directory): name a file."),
        (["list.json", "--gt", "truth.json", "--layers", "."], ". of --layers has no layer_1.json: name a folder"),
        (["list.json", "--gt", "truth.json", "--layers", "gap"], "gap of --layers has no layer_2.json: evaluate all"),
        (["list.json", "--gt", "truth.json", "--json", "./list.json"], "--json ./list.json is a file that is read"),
        (["list.json", "--gt", "truth.json", "--out", "truth.json"], "--out truth.json is a file that is read, and"),
        (["report.json", "--out", "report.json"], "--out report.json is a file that is read, and would be lost"),
        (["report.json", "--json", "report.html"], "--json report.html is the page's file, too: name another file."),
        (["report.json", "--metrics", "m", "m", "--json", "m"], "--json m is a file that is read, and would be lost"),
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
    Path("truth.json").write_text(json.dumps(TRUTH))
    Path("text.json").write_text("no json")
    Path("gap").mkdir()
    for layer in (1, 3):
        Path(f"gap/layer_{layer}.json").write_text("[]")
    whole = make_report(cases=0)
    Path("report.json").write_text(json.dumps(whole))
    truth = {key: value for key, value in whole["ground_truth"].items() if key != "classes"}
    Path("cut.json").write_text(json.dumps({**whole, "ground_truth": truth}))
    Path("bare.json").write_text(json.dumps({**whole, "detectors": [{"name": "A", "detections": 1}]}))
    Path("empty.json").write_text(json.dumps({**whole, "detectors": []}))
    status, printed, error = run(capsys, *arguments)
    assert status == 2 and printed == "" and not Path("report.html").exists()
    assert error.startswith(f"align-detr report: {sentence}") and len(error.splitlines()) == 1
