"""The wheel and the checkout offer the same modules, configs and projects; the command line hands over."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from align_detr import __version__
from align_detr.cli import main as cli
from align_detr.errors import EnvironmentProblem
from support.onnx_file import write_onnx

PROJECT = Path(__file__).resolve().parents[2]
NEEDED = ("align_detr", "configs", "projects", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
TOY = {
    "align_detr/projects/table.py": 'PROJECTS = {"toy": "TOY"}\n',
    "projects/TOY/toy/__init__.py": "from align_detr.projects.toy.heads.fast import NAME\n",
    "projects/TOY/toy/heads/__init__.py": "",
    "projects/TOY/toy/heads/fast.py": "NAME = 'toy'\n",
    "projects/TOY/configs/toy_r50.py": "from ....configs.common.shared import value\n",
    "configs/common/shared.py": "value = dict(a=1)\n",
    "datasets/bccd/README.md": "Blood cells, which no wheel holds.\n",
    "configs/toys/toy_r18.py": "from ..common.shared import value\n",
}
PROBE = """
import align_detr.projects.toy as toy
from align_detr import model_zoo
print(toy.__file__)
print(toy.NAME, model_zoo.config_path("TOY/toy_r50"), model_zoo.config_path("toys/toy_r18"), sep="\\n")
assert {"TOY/toy_r50.py", "toys/toy_r18.py"} <= set(model_zoo.names()), model_zoo.names()
assert model_zoo.get_config("TOY/toy_r50").value.a == model_zoo.get_config("toys/toy_r18").value.a == 1
"""

THREE_LINES = """
import align_detr
from align_detr import Detector
detector = Detector("digits", device="cpu")
found = detector.predict("photo.png")
print(align_detr.__file__, len(found), sep="\\n")
detector.save("mine.pth")
"""

WITHOUT_TORCH = """
import sys

NEEDED = {"align_detr", "numpy", "PIL", "onnxruntime", "flatbuffers", "google", "packaging"}  # what pip installs

class Only:
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NEEDED | sys.stdlib_module_names:
            return next(filter(None, (x.find_spec(name, path, target) for x in self.finders)), None)

sys.meta_path[:] = [Only(list(sys.meta_path))]
import align_detr
from align_detr.cli.main import main
found = align_detr.OnnxDetector("model.onnx").predict("photo.png")
print(align_detr.__file__, found.labels, found.boxes.tolist(), sep="\\n")
assert main("predict photo.png --weights model.onnx --out found --json --csv".split()) == 0
assert main("predict photo.png --out nothing".split()) == 2
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with one toy project in it."""
    root = tmp_path_factory.mktemp("checkout")
    for name in NEEDED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, root / name)
    for name, text in TOY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def run_python(*arguments: str, path: Path | None = None, cwd: Path) -> str:
    """Standard output of a fresh interpreter with `path` first on its search path."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(path or "")}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the copy, built without an index."""
    copy = tmp_path_factory.mktemp("build") / "checkout"
    shutil.copytree(checkout, copy)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist", "."]
    run_python("-m", "pip", "wheel", *options, cwd=copy)
    (built,) = (copy / "dist").glob("align_detr-*.whl")
    return built


def test_wheel_holds_every_module_and_config(checkout: Path, wheel: Path) -> None:
    def files(folder: str, prefix: str) -> set[str]:
        root = checkout / folder
        return {f"{prefix}/{path.relative_to(root).as_posix()}" for path in root.rglob("*.py")}

    expected = {"align_detr/py.typed", "align_detr/weights/digits.pth"}
    expected |= {f"align_detr/report/page/{name}" for name in ("page.html", "page.css", "page.js")}
    expected |= files("align_detr", "align_detr") | files("configs", "align_detr/configs")
    expected |= files("projects/TOY/toy", "align_detr/projects/toy")
    expected |= files("projects/TOY/configs", "align_detr/projects/TOY/configs")
    archive = zipfile.ZipFile(wheel)
    assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    assert f"Version: {__version__}" in lines and "License-Expression: Apache-2.0" in lines
    requirements = [line for line in lines if line.startswith("Requires-Dist")]
    assert requirements and not any("detectron2" in line for line in requirements)
    (commands,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "align-detr = align_detr.cli.main:main" in archive.read(commands).decode()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("checkout", ["projects/TOY/toy/__init__.py", "projects/TOY/configs/toy_r50.py", "configs/toys/toy_r18.py"]),
        (
            "wheel",
            [
                "align_detr/projects/toy/__init__.py",
                "align_detr/projects/TOY/configs/toy_r50.py",
                "align_detr/configs/toys/toy_r18.py",
            ],
        ),
    ],
)
def test_projects_and_configs_resolve(
    source: str, expected: list[str], checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    root = checkout if source == "checkout" else tmp_path / "site"
    if source == "wheel":
        zipfile.ZipFile(wheel).extractall(root)
    package, *configs = [str(root / path) for path in expected]
    assert run_python("-c", PROBE, path=root, cwd=tmp_path).splitlines() == [package, "toy", *configs]


def test_the_three_lines_work_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """With the detector that it holds; a file that this saves works, too, and so does the command."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    Image.new("RGB", (128, 96), "white").save(tmp_path / "photo.png")
    package, count = run_python("-c", THREE_LINES, path=site, cwd=tmp_path).splitlines()
    assert package == str(site / "align_detr/__init__.py") and count == "100"
    options = ["--weights", "mine.pth", "--out", "found", "--json", "--csv", "--device", "cpu"]
    printed = run_python("-m", "align_detr.cli.main", "predict", "photo.png", *options, path=site, cwd=tmp_path)
    assert printed.startswith("1 images; ")
    assert {x.name for x in (tmp_path / "found").iterdir()} == {"photo.png", "predictions.json", "predictions.csv"}


def test_the_detector_of_an_exported_file_works_from_the_wheel_without_torch(wheel: Path, tmp_path: Path) -> None:
    """With numpy, Pillow and onnxruntime alone, in Python and as a command, which refuses other weights."""
    pytest.importorskip("onnx", reason="needs onnx, which writes the file")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs the file")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    write_onnx(tmp_path / "model.onnx")
    Image.new("RGB", (128, 96), (0, 0, 200)).save(tmp_path / "photo.png")
    package, labels, boxes, summary, *_ = run_python("-c", WITHOUT_TORCH, path=site, cwd=tmp_path).splitlines()
    assert package == str(site / "align_detr/__init__.py") and labels == "['blue', 'red']"
    assert boxes == "[[0.0, 0.0, 64.0, 48.0], [0.0, 0.0, 128.0, 96.0]]"
    assert summary == "1 images; 1 detections that score at least 0.3: 1 blue."
    assert {x.name for x in (tmp_path / "found").iterdir()} == {"photo.png", "predictions.json", "predictions.csv"}


def test_a_project_in_the_table_without_a_package_stops_the_build(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy)
    (copy / "projects/TOY/toy/__init__.py").unlink()
    result = subprocess.run([sys.executable, "setup.py", "--version"], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 1 and "table.py names TOY" in result.stderr


def test_make_wheel_starts_without_earlier_builds_and_make_bench_runs_all() -> None:
    """What make would do, without doing it: setuptools packs whatever an earlier build left in build/."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "--dry-run", "wheel", "bench", "studies", "digits-weights", "report"]
    lines = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    packing = next(i for i, line in enumerate(lines) if "-m pip wheel" in line)
    assert "rm -rf build" in lines[:packing]
    for file in (PROJECT / "benchmarks").glob("*.py"):
        if "__main__" not in file.read_text() or file.name in ("seeded_steps.py", "startup_probe.py", "export_peer.py"):
            continue  # imported by several; two commits compared; a start and a peer with an environment of its own
        assert any(f"benchmarks/{file.name}" in line.split() for line in lines), file.name


def test_every_requirement_is_pinned_and_none_is_detectron2() -> None:
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements and all("==" in line for line in requirements)
    assert not any(line.startswith("detectron2") for line in requirements)


def test_command_line_suggests_and_prints_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tran"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)

    def fails(argv: list[str]) -> int:
        raise EnvironmentProblem(f"no network for {argv}")

    monkeypatch.setattr("align_detr.cli.install_detectron2.main", fails)
    assert cli.main(["install-detectron2", "--now"]) == 2
    assert capsys.readouterr().err == "align-detr install-detectron2: no network for ['--now']\n"
