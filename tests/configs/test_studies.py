"""The studies of benchmarks/: every command loads, and every run has a folder of its own."""

import importlib
import sys

import pytest
from paths import PROJECT

from align_detr.engine.run_config import load_config

NAMES = [path.stem for path in (PROJECT / "benchmarks").glob("*.py") if "STUDY = Study(" in path.read_text()]


@pytest.fixture(params=NAMES)
def study(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    yield importlib.import_module(request.param).STUDY
    for name in ("studies", request.param):
        sys.modules.pop(name, None)


def test_commands(study) -> None:
    folders = set()
    for variant in study.variants:
        command = study.command(variant, 7)
        assert command[2] == "--config-file" and command[3] == variant.config
        cfg = load_config(variant.config, command[4:])
        assert cfg.train.seed == 7 and cfg.train.output_dir == str(study.folder(variant, 7))
        folders.update(study.folder(variant, seed) for seed in (1, 7))
    assert NAMES and len(folders) == 2 * len(study.variants)
