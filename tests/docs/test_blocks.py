"""Every block of Python or of commands on a page is run by a test, or is listed here with the reason why it is not.

Commands outside the lists have arguments that their subcommand knows and name configs that exist.
"""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from align_detr import model_zoo
from align_detr.cli.main import COMMANDS
from support.paths import PROJECT

BLOCK = re.compile(r"^ *```(python|bash|console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path.relative_to(PROJECT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/*/*.md", "datasets/**/*.md", "benchmarks/*.md", "projects/*/*.md")
    for path in PROJECT.glob(pattern)
)
# page -> test that runs all of its Python
RUN_BY = {
    "README.md": "tests/configs/test_commands.py",
    "CONTRIBUTING.md": "tests/test_docs.py",
    "docs/backbones.md": "tests/test_docs.py",
    "docs/data.md": "tests/test_docs.py",
    "docs/export.md": "tests/docs/test_export_page.py",
    "docs/extending.md": "tests/docs/test_examples.py",  # and tests/engine/test_yacs_training.py
}
# first line of a block of Python that no test runs -> the reason; its names are checked (tests/test_face.py)
NOT_RUN = {
    "set_class_loss(model.criterion, L(IABCELoss)(weight=1.0, alpha=0.25, gamma=2.0))": "lines of a config",
    "model.head.softmax = True": "lines of a config",
    "set_class_loss(model.criterion, L(DualWeightingLoss)(weight=1.0, gamma=2.0, power=2.0))": "lines of a config",
    "import json": "needs files of results; tests/analysis/test_report_numbers.py calls analyse_files",
    "from detectron2.config import LazyCall as L": "lines of a config",
    'model["_target_"] = SegmentationDeformableDETR  # or SegmentationDETR, for detectors of one map': "of a config",
    "from align_detr import OnnxDetector": "needs an exported file; tests/export/test_onnx_detector.py makes one",
    "from align_detr import Detector, optimize_for_inference": "tests/inference/test_optimized.py calls both (15 s)",
}
# commands of other programs, and why their arguments are not ours to check
OTHERS = {
    "make": "the Makefile's targets: test_targets_of_make",
    "export": "the shell's",
    "torchrun": "tests/engine starts it",
    "pip": "installs a package",
    "python": "a script, whose file is checked",
    ".venv/bin/python": "a script, whose file is checked",
    "sbatch": "needs Slurm; tests/test_recipes.py checks the recipe",
    "git": "fetches",
    "mkdir": "the shell's",
    "cp": "the shell's",
}


def blocks(*kinds: str) -> list[tuple[str, str]]:
    """Return page and text of every block of these kinds."""
    return [
        (page, text) for page in PAGES for kind, text in BLOCK.findall((PROJECT / page).read_text()) if kind in kinds
    ]


def command_lines() -> list[tuple[str, str]]:
    """Return page and command, continued lines joined, prompts and comments taken off."""
    found = []
    for page, text in blocks("bash", "console", "sh"):
        lines = text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):  # a transcript: what is typed has a prompt
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found += [(page, line.strip()) for line in lines if line.strip() and not line.strip().startswith("#")]
    return found


def words_of(command: str) -> list[str]:
    """Return a command's words, without the variables set before it."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_is_run_or_listed(page: str, text: str) -> None:
    ast.parse(text)
    assert page in RUN_BY or runs_alone(text) or text.strip().splitlines()[0] in NOT_RUN, f"{page}: {text}"


def runs_alone(text: str) -> bool:
    """Return whether `test_python_that_runs_alone` runs a block: the shipped detector and what the block makes."""
    return "Detector(" in text or "elementwise(" in text


def test_every_page_named_here_is_there() -> None:
    assert set(RUN_BY) <= set(PAGES) and all((PROJECT / test).is_file() for test in RUN_BY.values())


def test_python_that_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a photo and, for losses, tensors of the stated shapes."""
    import torch
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64), "white").save("photo.jpg")
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.4, 0.1, 0.2]])
    names = {
        "logits": torch.zeros(2, 4),
        "labels": torch.tensor([1, 2]),
        "iou": torch.tensor([0.5, 0.7]),
        "branch": torch.zeros(2),
        "boxes": boxes,
        "target_boxes": boxes.flip(0),
    }
    for page, text in blocks("python"):
        if page not in RUN_BY and runs_alone(text) and text.strip().splitlines()[0] not in NOT_RUN:
            exec(compile(text, page, "exec"), dict(names))


@pytest.mark.parametrize(("page", "command"), command_lines())
def test_a_command_is_known(page: str, command: str) -> None:
    words = words_of(command)
    if not words:
        return
    if words[0] == "align-detr":
        check_subcommand(words[1:])
    elif words[0] == "source":
        return
    else:
        assert words[0] in OTHERS or (PROJECT / words[0]).exists(), f"{page}: {command}"
    for script in (word for word in words if word.endswith(".py") and word.startswith(("benchmarks/", "docs/"))):
        assert (PROJECT / script).is_file(), f"{page}: {script}"


def check_subcommand(words: list[str]) -> None:
    """Raise AssertionError or the parser's SystemExit for a subcommand, an argument or a config that does not exist."""
    assert words[0] in COMMANDS or words[0].startswith("-"), words
    if words[0].startswith("-"):
        return
    module = import_module(COMMANDS[words[0]][0])
    if hasattr(module, "build_parser"):
        parser = module.build_parser()
        args = parser.parse_intermixed_args(words[1:]) if words[0] == "train" else parser.parse_args(words[1:])
        config = getattr(args, "config_file", None)
        of_a_run = config is not None and config.startswith("output/")
        known = not config or "/" not in config or config in model_zoo.names() or of_a_run or not config[0].isalpha()
        assert known, config


def test_targets_of_make() -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page, command in command_lines():
        words = words_of(command)
        if words and words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, f"{page}: {command}"
