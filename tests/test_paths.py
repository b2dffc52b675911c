"""Folders follow the environment, and have defaults without it."""

from pathlib import Path

import pytest

from align_detr.paths import cache_folder, data_folder


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGN_DETR_DATA", str(tmp_path))
    assert data_folder() == tmp_path.resolve()
    monkeypatch.delenv("ALIGN_DETR_DATA")
    assert data_folder() == (Path(__file__).resolve().parents[2] / "shared" / "data").resolve()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGN_DETR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path.resolve()
    monkeypatch.delenv("ALIGN_DETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == (tmp_path / ".cache" / "align_detr").resolve()
