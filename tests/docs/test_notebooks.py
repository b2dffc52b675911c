"""The notebooks of docs/notebooks run in a new kernel, are stored without outputs, and are pages of the site."""

import os
import re
from pathlib import Path
from typing import Any

import pages
import pytest

from support.paths import PROJECT

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which reads notebooks")
NOTEBOOKS = {path.stem: path for path in sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb"))}


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the outputs of all cells of a notebook, run in `folder` on the CPU."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which runs notebooks")
    pytest.importorskip("ipykernel", reason="needs ipykernel, in which notebooks run")
    for key, value in {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "IPYTHONDIR": str(folder / ".ipython"),
        "ALIGN_DETR_DATA": str(PROJECT / "datasets"),
    }.items():
        monkeypatch.setenv(key, value)
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=None, startup_timeout=600, resources=where).execute()
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(outputs: list[Any]) -> str:
    """Return what cells print, and their last values as text."""
    texts = [x.text if x.output_type == "stream" else x.get("data", {}).get("text/plain", "") + "\n" for x in outputs]
    return "".join(texts)


def test_there_are_three() -> None:
    assert set(NOTEBOOKS) == {"detect", "train", "new_loss"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    """And without what an editor adds to it: names of kernels and versions."""
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(book)
    assert all(not cell.outputs and cell.execution_count is None for cell in book.cells if cell.cell_type == "code")
    assert all(not cell.metadata for cell in book.cells)
    assert book.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    text = pages.text_of(NOTEBOOKS[name])
    links = re.findall(r"\]\(([^)\s#:]+)[)#]", pages.CODE.sub("", text))
    assert links and all((NOTEBOOKS[name].parent / link).exists() for link in links)


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    """Text as it is, code in blocks, and a cell that writes a file below that file's name."""
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_markdown_cell("# A head\n[more](detect.ipynb)"),
        nbformat.v4.new_code_cell("a = 1\na"),
        nbformat.v4.new_code_cell("%%writefile part.py\nb = 2"),
    ]
    nbformat.write(book, tmp_path / "book.ipynb")
    text = "# A head\n[more](detect.ipynb)\n\n```python\na = 1\na\n```\n\n`part.py`:\n\n```python\nb = 2\n```\n"
    assert pages.text_of(tmp_path / "book.ipynb") == text


def test_detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower threshold shows more, and finds no less; the picture is shown and saved."""
    outputs = executed("detect", tmp_path, monkeypatch)
    rows = re.findall(r"^ +(0\.\d) +(\d+) +(\d+)$", printed(outputs), re.MULTILINE)
    shown, right = ([int(row[k]) for row in rows] for k in (1, 2))
    assert [row[0] for row in rows] == ["0.1", "0.3", "0.5", "0.7"]
    assert shown == sorted(shown, reverse=True) and right == sorted(right, reverse=True) and 0 < right[-1] < shown[0]
    assert any("image/png" in x.get("data", {}) for x in outputs) and "'image_id': 7" in printed(outputs)
    assert (tmp_path / "output" / "found.png").is_file()


def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, results, the report's page and its figures are there."""
    outputs = executed("train", tmp_path, monkeypatch)
    run = tmp_path / "output" / "cells"
    assert (run / "weights.pth").is_file() and (run / "inference" / "coco_instances_results.json").is_file()
    assert "train 205 photos" in printed(outputs) and re.search(r"^AP +\d", printed(outputs), re.MULTILINE)
    assert "40 iterations" in (tmp_path / "output" / "report.html").read_text()
    assert sum("image/png" in x.get("data", {}) for x in outputs) == 2


def test_new_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of -u ln s - (1 - u) ln(1 - s) along the logit is s - u; the comparison has both detectors."""
    text = printed(executed("new_loss", tmp_path, monkeypatch))
    assert "SoftIoULoss  [-0.5, -0.3, -0.1, 0.0, 0.1, 0.3]" in text
    assert "AP of soft IoU is" in text
    assert all((tmp_path / "output" / x / "weights.pth").is_file() for x in ("ia_bce", "soft_iou"))
