"""Tables: what a cell shows, the value that sorting compares, and columns per detector."""

import pytest

from align_detr.report import tables
from align_detr.report.metrics import in_order, metric_of, number
from support.page import Page
from support.report import make_report


@pytest.mark.parametrize(
    ("name", "value", "shown", "difference"),
    [
        ("AP", 50.25, "50.2", "+50.25"),
        ("AP", -0.004, "0.0", "0.00"),
        ("oracle_gap", -1.26, "−1.3", "−1.26"),
        ("recall_best_regressed", 0.4567, "45.7\N{NO-BREAK SPACE}%", "+45.7"),
        ("pearson", -0.0625, "−0.062", "−0.062"),
        ("AP", None, "–", "–"),
        ("pearson", float("nan"), "–", "–"),
        ("a_new_metric", 1.5, "1.500", "+1.500"),
    ],
)
def test_a_metric_has_sensible_digits(name: str, value: float | None, shown: str, difference: str) -> None:
    assert metric_of(name).format(value) == shown and metric_of(name).format_difference(value) == difference


def test_unknown_metrics_come_last() -> None:
    assert in_order(["new", "pearson", "AP", "pearson"]) == ["AP", "pearson", "new"]
    assert number(1234.5, 0) == "1234"


@pytest.mark.parametrize(
    ("name", "interval", "kind"),
    [
        ("AP", (0.1, 0.9), "better"),
        ("AP", (-0.9, -0.1), "worse"),
        ("AP", (-0.1, 0.9), "noise"),
        ("AP", (0.0, 0.9), "noise"),
        ("AP", (0.0, 0.0), ""),
        ("olrp", (0.1, 0.9), "worse"),
        ("olrp", (-0.9, -0.1), "better"),
        ("oracle_gap", (-0.1, 0.9), "noise"),
    ],
)
def test_a_difference_is_noise_if_its_interval_contains_0(name: str, interval: tuple[float, float], kind: str) -> None:
    report = make_report()
    low, high = interval
    report["differences"][0]["metrics"] = {name: {"difference": 0.4, "low": low, "high": high}}
    table = tables.metric_table(report, [name])
    assert table is not None
    ((label, cells),) = table.rows
    assert label == metric_of(name).label and cells[-1].kind == cells[-1].note == kind
    assert list(table.heads) == ["DINO", "Align-DINO", "Align-DINO − DINO"]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_smaller_oracle_gap_is_no_better_for_duplicates_lower_it_too(sign: int) -> None:
    report = make_report()
    entry = {"difference": sign * 0.4, "low": min(sign * 0.1, sign * 0.9), "high": max(sign * 0.1, sign * 0.9)}
    report["differences"][0]["metrics"] = {"oracle_gap": entry}
    table = tables.metric_table(report, ["oracle_gap"])
    assert table is not None
    cell = table.rows[0][1][-1]
    assert (cell.kind, cell.note) == ("beyond", "")


def test_classes_are_rows_and_detectors_columns() -> None:
    report = make_report(("a", "b"), ("x", "y"))
    table, others = tables.class_tables(report)
    assert others is not None and [text for text, _ in others.groups] == ["AP75", "OCE"]
    assert [text for text, span in table.groups if span == 2][:3] == ["AP", "Recommended threshold", "AP50"]
    assert list(table.heads) == ["a", "b"] * len(table.groups)
    name, cells = table.rows[0]
    first, second = (each["per_class"]["AP"][0] for each in report["detectors"])
    assert name == "x" and [cell.value for cell in cells[:2]] == [first, second]
    assert [cell.text for cell in table.rows[1][1][:2]] == ["–", "–"]


def test_one_detector_needs_no_groups() -> None:
    table, _ = tables.class_tables(make_report(("a",)))
    assert table.groups == () and list(table.heads[:2]) == ["AP", "Recommended threshold"]


def test_the_table_of_classes_sorts(page: Page) -> None:
    """Its cells have full numbers and its last heads their columns; without JavaScript it has no dead button."""
    sortable = [x for x in page.all("table") if "data-sortable" in x.attributes]
    assert len(sortable) == 2 and page.all("button") == []
    columns = [int(x.attributes["data-column"] or -1) for x in page.all("th") if "data-column" in x.attributes]
    assert max(columns) >= 18 and columns.count(0) == len([x for x in page.all("table") if x.parents[-1] == "div"])
    assert any(len(x.attributes.get("data-value") or "") > 10 for x in page.all("td"))


def test_without_samples_a_table_of_differences_speaks_of_no_intervals() -> None:
    report = make_report()
    table = tables.metric_table(report, ["AP"])
    assert table is not None and "95 % intervals" in table.caption
    report["differences"][0]["samples"] = 0
    table = tables.metric_table(report, ["AP"])
    assert table is not None and table.caption == "Differences of shares in percentage points."
