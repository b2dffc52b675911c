"""`align-detr doctor`: a block for an issue without personal paths, and a remedy for each problem."""

from pathlib import Path

import pytest

from align_detr.cli import doctor
from align_detr.errors import ConfigError


def test_a_sound_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "detect", lambda: {"cpu": [0.9, 0.1], "cuda": [0.901, 0.1]})
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    lines = printed.partition("```text\n")[2].partition("```")[0].splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert names[:2] == ["align-detr", "Python"] and names[-1] == "self-test"
    assert {"packages", "optional packages", "detectron2", "GPU", "small data", "DETECTRON2_DATASETS", "disk"} < set(
        names
    )
    assert "passed on cpu, cuda" in lines[-1] and printed.endswith("Nothing is wrong.\n")


def test_the_detector_of_the_self_test() -> None:
    """Ten scores on each device; the digits' detector is unsure of an empty picture."""
    scores = doctor.detect()
    assert len(scores["cpu"]) == 10 and max(scores["cpu"]) < 0.5


def test_what_is_missing_has_a_remedy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the self-test, which would fail, is left out."""
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "surely-no-package"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5e8}))
    assert doctor.main([]) == 2
    printed = capsys.readouterr().out
    assert "surely-no-package missing: run `make setup`" in printed
    assert "detectron2 is missing: run `align-detr install-detectron2`." in printed
    assert "0.5 GB are free" in printed and "self-test" not in printed and printed.endswith("3 problem(s).\n")


@pytest.mark.parametrize("scores", [{"cpu": [0.9], "cuda": [0.7]}, {"cpu": [0.9], "cuda": []}])
def test_devices_that_disagree(scores: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "detect", lambda: scores)
    assert "cuda disagrees with the CPU" in doctor.self_test().problem


def test_a_self_test_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, list[float]]:
        raise ConfigError("The detector 'digits' should come with the package.")

    monkeypatch.setattr(doctor, "detect", fail)
    assert doctor.self_test().problem.endswith("ConfigError: The detector 'digits' should come with the package.")


def test_no_personal_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.Path, "home", lambda: Path("/home/jane"))
    assert doctor.without_home("Python at /home/jane/.venv/bin/python") == "Python at ~/.venv/bin/python"
