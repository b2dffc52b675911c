"""The exact losses that judge a refactoring: repeatable, and sensitive to the last bits of a weight."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from support.paths import PROJECT

CONFIG = "quickstart/digits_detr.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    yield importlib.import_module("seeded_steps")
    sys.modules.pop("seeded_steps", None)


def test_lines_are_repeatable_and_follow_the_config(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "STEPS", 2)
    lines = list(script.seeded_steps(CONFIG))
    assert [line.split(":")[0] for line in lines] == [f"{CONFIG} {x}" for x in ("step 0", "step 1", "detections")]
    assert len(set(lines)) == 3 and list(script.seeded_steps(CONFIG)) == lines

    load = script.model_zoo.get_config

    def heavier_boxes(name: str):
        cfg = load(name)
        cfg.model.criterion.losses[1].weight *= 1 + 2**-20
        return cfg

    monkeypatch.setattr(script.model_zoo, "get_config", heavier_boxes)
    changed = list(script.seeded_steps(CONFIG))
    assert all(now != before for now, before in zip(changed[:2], lines, strict=False))
