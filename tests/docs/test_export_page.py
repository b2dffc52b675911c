"""The Python of docs/export.md, with a file that finds the whole image and its upper left quarter."""

import re
from pathlib import Path

import pytest
from PIL import Image

from support.onnx_file import write_onnx
from support.paths import PROJECT


def test_the_file_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a blue photo, whose third channel is 204 of 255, the quarter alone is shown: 0.8, "blue"."""
    pytest.importorskip("onnx", reason="needs onnx, which writes the file")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs the file")
    (block,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "export.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "cells.onnx")
    Image.new("RGB", (64, 48), (0, 0, 204)).save("photo.jpg", format="PNG")  # exact
    exec(compile(block, "docs/export.md", "exec"), {})
    (line,) = capsys.readouterr().out.splitlines()
    name, score, *box = re.sub(r"[\[\]]", " ", line).split()
    assert name == "blue" and float(score) == pytest.approx(0.8) and [float(x) for x in box] == [0, 0, 320, 240]
