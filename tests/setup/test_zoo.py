"""`align-detr zoo`: the list of configs, without torch."""

import re
import subprocess
import sys

import pytest

from align_detr import model_zoo
from align_detr.cli.main import main
from align_detr.published import PUBLISHED_AP
from support.paths import PROJECT

WITHOUT_TORCH = """
import sys

for name in ("torch", "detectron2", "omegaconf", "numpy"):
    sys.modules[name] = None  # any import of it is an ImportError
from align_detr.cli.main import main

sys.exit(main(["zoo"]))
"""


def test_every_config_is_listed_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = done.stdout.splitlines()
    assert listed[0].split() == ["config", "epochs", "published", "AP"]
    assert [line.split()[0] for line in listed[1 : 1 + len(model_zoo.names())]] == model_zoo.names()


def test_a_pattern_selects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "align_detr/align_dino_r50_4scale_12ep.py"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["align_detr/align_dino_r50_4scale_12ep.py", "12", "50.2"]
    assert main(["zoo", "detr/*_500ep.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("detr-r50 ")] == [
        ["detr-r50", "detr/detr_r50_500ep.py", "42.0"]
    ]
    assert not any("dino" in line for line in lines)
    assert main(["zoo", "yolo"]) == 2
    assert "No config's name matches yolo" in capsys.readouterr().err


def test_published_figures_are_those_of_the_page() -> None:
    page = (PROJECT / "docs/models.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| \d+ \| ([\d.]+) \|", page, re.MULTILINE)
    assert {name: float(ap) for name, ap in rows} == PUBLISHED_AP and len(rows) > 20
    assert set(PUBLISHED_AP) <= set(model_zoo.names())
