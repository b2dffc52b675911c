"""A page of two detectors with layers, training and photos, which many tests read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align_detr.report import write_page
from support.page import Page, read_page
from support.report import make_report


@pytest.fixture(scope="package")
def report() -> dict[str, Any]:
    made = make_report(layers=2, cases=3)
    runs = [{"name": name, "file": "metrics.json", "iterations": [50, 100], "AP": [1.5, 9.25]} for name in ("A", "B")]
    return {**made, "training": [{**run, "AP50": [4.5, 11.75]} for run in runs]}


@pytest.fixture(scope="package")
def written(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("report")
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    for k in range(3):
        Image.fromarray(pixels).save(folder / f"photo_{k}.jpg", quality=50)
    return write_page(report, folder / "report.html", images=folder)


@pytest.fixture(scope="package")
def html(written: list[Path]) -> str:
    return written[0].read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def page(html: str) -> Page:
    return read_page(html)
