"""The page is whole HTML that needs nothing else, shows every number of the report, and names nothing unescaped."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align_detr.errors import EnvironmentProblem
from align_detr.report import require_libraries, write_page
from align_detr.report.metrics import METRICS, metric_of
from align_detr.report.page import build_sections
from support.page import Page, read_page
from support.report import make_report

HOSTILE = '<b>"RBC"</b> & $x$ <script>alert(1)</script>'


def test_the_page_is_well_formed(page: Page, html: str) -> None:
    assert html.startswith("<!doctype html>")
    assert page.faults == [] and page.never_closed == []
    ids = Counter(element.attributes["id"] for element in page.elements if "id" in element.attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    for element in page.elements:
        link = element.attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in ids


def test_the_page_needs_no_network(page: Page, html: str) -> None:
    """Neither an address nor a file is named; the policy would refuse it."""
    assert "http:" not in html and "https:" not in html and "@import" not in html
    for element in page.elements:
        assert element.tag not in ("link", "iframe", "object", "embed")
        assert "src" not in element.attributes
        link = element.attributes.get("href")
        assert link is None or link.startswith(("#", "data:image/"))
    urls = re.findall(r"url\(([^)]*)\)", html)
    assert urls and all(url.startswith("#") for url in urls)
    (policy,) = (x.attributes["content"] for x in page.all("meta") if "http-equiv" in x.attributes)
    assert "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/]{43}='$", policy)


def test_every_number_of_the_report_is_on_the_page(report: dict[str, Any], page: Page) -> None:
    texts = Counter(cell.text.strip() for cell in page.all("td"))
    for detector in report["detectors"]:
        for values in (detector["overall"], *detector["per_size"].values(), *detector["layers"]):
            assert [name for name, value in values.items() if metric_of(name).format(value) not in texts] == []
        for name, column in detector["per_class"].items():
            assert [value for value in column if metric_of(name).format(value) not in texts] == []
        assert [x for x in detector["thresholds"] if (f"{x:.3f}" if x is not None else "–") not in texts] == []
        for value in detector["curves"]["recall_best_regressed"]["values"]:
            assert f"{100 * value:.1f}\N{NO-BREAK SPACE}%" in texts
    for run in report["training"]:
        assert {f"{value:.1f}" for name in ("AP", "AP50") for value in run[name]} <= {*texts}
    (difference,) = report["differences"]
    for name, entry in difference["metrics"].items():
        shown = [metric_of(name).format_difference(entry[key]) for key in ("difference", "low", "high")]
        assert any(text.startswith("{} ({} to {})".format(*shown)) for text in texts), name


def test_sections_stand_in_their_order(page: Page) -> None:
    sections = [x.attributes["id"] for x in page.all("section")]
    assert sections == [
        *(
            "summary",
            "ap",
            "alignment",
            "calibration",
            "olrp",
            "errors",
            "duplicates",
            "precision",
            "layers",
            "training",
        ),
        *("gallery", "classes", "sizes", "definitions", "made"),
    ]
    for key, word in [("summary", "highest AP"), ("made", "seed 0"), ("made", "1,000 samples"), ("gallery", "rank")]:
        assert word in page.by_id(key).text


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    report = make_report((HOSTILE, "_hidden"), (HOSTILE, "b"), cases=1, file_name=HOSTILE)
    report["differences"][0]["sentence"] = HOSTILE
    text = write_page(report, tmp_path / "report.html")[0].read_text(encoding="utf-8")
    page = read_page(text)
    assert page.faults == [] and "<b>" not in text and "alert(1)</script>" not in text
    assert len(page.all("script")) == 1
    heads = [x.text for x in page.all("th")]
    assert HOSTILE in heads and page.all("h1")[0].text == f"{HOSTILE} and _hidden"
    assert any("<script>" in x.text and "svg" in x.parents for x in page.all("text")), "names in figures are shortened"


def test_what_is_not_measured_is_a_dash(tmp_path: Path) -> None:
    """A report without any number, of one detector without detections, is a page all the same."""
    report = make_report(("none",), ("a",), cases=0)
    (detector,) = report["detectors"]
    detector["overall"] = dict.fromkeys(METRICS)
    detector["per_class"] = {"AP": [None]}
    detector["thresholds"] = [None]
    detector["detections"], detector["file"], report["ground_truth"]["file"] = 0, None, None
    run = {"name": "none", "file": "metrics.json", "iterations": [5], "AP": [None], "AP50": [None]}
    report["training"], curves = [run], detector["curves"]
    curves["recall_best_regressed"]["values"] = [None] * 5
    curves["iou_histogram"] |= {"best_regressed": [None] * 10, "most_confident": [None] * 10}
    curves["score_iou"]["density"] = [[0] * 25] * 25
    curves["reliability"] |= {
        "confidence": [None] * 10,
        "quality": [None] * 10,
        "count": [0] * 10,
        "recalibrated": None,
    }
    curves["precision_recall"] |= {"AP50": [None] * 101, "AP75": [None] * 101}
    page = read_page(write_page(report, tmp_path / "report.html")[0].read_text(encoding="utf-8"))
    assert "There is no AP" in page.by_id("summary").text
    assert "Ground truth: 72 images" in page.by_id("made").text and "None" not in page.by_id("made").text
    assert "One evaluation makes no curve." in page.by_id("training").text
    assert {x.text for x in page.all("td") if "nan" in x.text.lower() or "None" in x.text} == set()
    assert sum(x.text == "–" for x in page.all("td")) > len(METRICS)


def test_many_classes_and_photos_stay_below_5_megabytes(tmp_path: Path) -> None:
    """80 classes, three detectors, and photos of noise, which compresses worst."""
    noise = Image.effect_noise((640, 480), 90).convert("RGB")
    for k in range(40):
        noise.save(tmp_path / f"photo_{k}.jpg", quality=70)
    report = make_report(("one", "two", "three"), [f"class {k}" for k in range(80)], cases=40)
    page = write_page(report, tmp_path / "report.html", images=tmp_path)[0]
    assert page.stat().st_size < 5e6
    assert "12 of the 40 in the JSON" in page.read_text(encoding="utf-8")


def test_the_gallery_does_not_grow_with_the_number_of_detectors() -> None:
    sections, _ = build_sections(make_report([f"detector {k}" for k in range(18)], cases=9), None)
    galleries = next(section.galleries for section in sections if section.key == "gallery")
    assert [sum(len(cases) for _, cases, _ in each.of_detectors) for each in galleries] == [36, 36, 36]


def test_figures_are_png_files_beside_the_page(written: list[Path]) -> None:
    page, *figures = written
    assert {path.parent for path in figures} == {page.parent / "report_figures"}
    names = [path.stem for path in figures]
    assert len(set(names)) == len(names)
    assert {"overview", "recall_of_best_regressed", "score_iou_2", "error_types", "training_AP", "misaligned_1"} <= {
        *names
    }
    for path in figures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 200


def test_equal_numbers_give_equal_files(tmp_path: Path) -> None:
    report = make_report(("one",), cases=0)
    first, again = (write_page(report, tmp_path / name / "report.html") for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_colors_of_figures_follow_the_page(page: Page, html: str) -> None:
    """Lines, bars and texts have the page's variables, which dark mode sets anew."""
    known = set(re.findall(r"--([a-z]\w*): #", html))
    used = set(re.findall(r"var\(--(\w+)\)", html))
    assert used <= known and {"d0", "d1", "ink", "line"} <= used
    panels = [x for x in page.all("svg") if "figure" in x.parents and "aria-label" in x.attributes]
    assert len(panels) > 20 and all(x.attributes["role"] == "img" for x in panels)
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_missing_libraries_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("jinja2", "sklearn") else object())
    with pytest.raises(
        EnvironmentProblem, match=r"needs jinja2 and scikit-learn, .*pip install 'align_detr\[report\]'"
    ):
        require_libraries()


def test_a_page_that_cannot_be_written_is_one_sentence(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="report.html cannot be written"):
        write_page(report, tmp_path / "file" / "report.html")
