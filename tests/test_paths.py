"""Folders follow the environment, and have defaults without it."""

from pathlib import Path

import pytest

from align_detr.paths import cache_folder, data_folders, data_path, is_small_data


def test_data_is_looked_for_where_the_environment_says_then_in_the_checkout_then_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = Path(__file__).resolve().parents[1]
    own = [checkout / "datasets", checkout.parent / "shared" / "data"]
    monkeypatch.delenv("ALIGN_DETR_DATA", raising=False)
    assert data_folders() == own
    monkeypatch.setenv("ALIGN_DETR_DATA", str(tmp_path))
    assert data_folders() == [tmp_path.resolve(), *own]


def test_path_of_data_is_in_the_first_folder_that_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGN_DETR_DATA", str(tmp_path))
    checkout = Path(__file__).resolve().parents[1]
    assert data_path("weights/LICENSE.mobilenet_v2") == checkout / "datasets" / "weights" / "LICENSE.mobilenet_v2"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "LICENSE.mobilenet_v2").touch()
    assert data_path("weights/LICENSE.mobilenet_v2") == tmp_path.resolve() / "weights" / "LICENSE.mobilenet_v2"
    assert data_path("absent") == tmp_path.resolve() / "absent"
    assert is_small_data(tmp_path / "x") and is_small_data(checkout / "datasets" / "x")
    assert not is_small_data(checkout / "configs")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGN_DETR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path.resolve()
    monkeypatch.delenv("ALIGN_DETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == (tmp_path / ".cache" / "align_detr").resolve()
