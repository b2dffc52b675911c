"""The names of everyday use in `align_detr`, with and without torch, and the exit status of its commands."""

import subprocess
import sys
from pathlib import Path

import pytest

import align_detr
from align_detr.cli import main as cli
from align_detr.cli import train
from align_detr.config import add_align_detr_config
from align_detr.errors import EXIT_USER_ERROR, EnvironmentProblem

WITHOUT_TORCH = """
import sys

for name in ("torch", "detectron2", "omegaconf", "numpy"):
    sys.modules[name] = None  # any import of it is an ImportError
import align_detr
from align_detr.cli.main import main

print(align_detr.__version__, len(align_detr.model_zoo.names()))
for arguments in (["--help"], ["--version"]):
    assert main(arguments) == 0
for command in ("train", "predict", "validate", "report", "zoo", "doctor", "demo", "install-detectron2"):
    try:
        main([command, "--help"])
    except SystemExit as error:
        assert error.code == 0
"""


def test_the_public_names_are_there():
    assert {name: getattr(align_detr, name) for name in align_detr.__all__}
    assert align_detr.add_align_detr_config is add_align_detr_config
    assert align_detr.model_zoo.names()
    with pytest.raises(AttributeError, match="module 'align_detr' has no attribute 'absent'"):
        _ = align_detr.absent
    with pytest.raises(ImportError, match="cannot import name 'absent'"):
        from align_detr import absent  # noqa: F401


def test_names_and_help_need_no_torch():
    """Set-up uses the package before anything is installed."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{align_detr.__version__} {len(align_detr.model_zoo.names())}\n")
    assert "usage: align-detr install-detectron2" in done.stdout


def test_every_command_ends_with_one_status_after_an_error_of_the_user(monkeypatch, capsys):
    """Wrong usage, a wrong value and a fault of the machine give one status, however a command is started."""

    def fails(argv):
        raise EnvironmentProblem("There is no network: connect it.")

    monkeypatch.setattr("align_detr.cli.install_detectron2.main", fails)
    unknown_config = ["--config-file", "detr/detr_r50_50000ep.py"]
    arguments = [[], ["tran"], ["install-detectron2"], ["demo", *unknown_config], ["train", *unknown_config]]
    assert [cli.main(x) for x in arguments] == [EXIT_USER_ERROR] * 5
    assert train.main(unknown_config) == EXIT_USER_ERROR
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        cli.main(["train", "--config"])
    assert usage.value.code == EXIT_USER_ERROR


def test_the_plain_script_of_set_up_ends_with_the_same_status(tmp_path):
    script = Path(align_detr.__file__).parent / "cli" / "install_detectron2.py"
    arguments = ["--archive", str(tmp_path / "absent.tar.gz"), "--wheel-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert done.stderr.startswith("install-detectron2: The archive ") and len(done.stderr.splitlines()) == 1
