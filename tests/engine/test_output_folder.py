"""Two runs in one output folder."""

import errno
import logging
import multiprocessing
import os
import re
import socket
from pathlib import Path

import pytest

from align_detr.engine.folder_lock import folder_lock
from align_detr.engine.output_folder import check_folder, clear_folder
from align_detr.errors import ConfigError

OF_A_RUN = ("model_0000003.pth", "model_final.pth", "model_best.pth", "last_checkpoint", "metrics.json", "best.json")
OF_A_RUN += ("weights.pth", "weights_best.pth", "events.out.tfevents.1.host")
OF_THE_USER = ("mobilenet.pth", "model_2.pth", "metrics.json.old", "log.txt", "config.py", "notes.md")


def test_a_second_run_is_refused_or_replaces_the_first(tiny_run, capsys):
    assert tiny_run.train("train.max_iter=2", "train.eval_period=0") == 0
    before = (tiny_run.output / "metrics.json").read_text()
    capsys.readouterr()
    assert tiny_run.train("train.max_iter=1") == 2
    assert f"{tiny_run.output} has checkpoints of an earlier run (model_" in (err := capsys.readouterr().err)
    assert "--resume" in err and "--overwrite" in err and (tiny_run.output / "metrics.json").read_text() == before
    assert tiny_run.train("--overwrite", "--resume") == tiny_run.train("--eval-only", "--overwrite") == 2
    assert capsys.readouterr().err.count("leave") == 2

    assert tiny_run.train("--overwrite", "train.max_iter=1", "train.eval_period=0") == 0
    assert [row["iteration"] for row in tiny_run.metrics()] == [0, 1]
    assert "metrics.json, model_0000001.pth, model_final.pth" in capsys.readouterr().out


def test_the_start_of_a_run_is_not_overwritten(tiny_run, capsys):
    """It is refused by name, whatever way leads to it; a file of another name or folder is not in danger."""
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    start = tiny_run.output.parent / "output" / ".." / "output" / "weights.pth"
    capsys.readouterr()
    assert tiny_run.train("--overwrite", "train.max_iter=1", f"train.init_checkpoint={start}") == 2
    assert "is one of the files that --overwrite removes: move it to another folder" in capsys.readouterr().err
    assert start.is_file() and (tiny_run.output / "model_final.pth").is_file()
    moved = start.rename(tiny_run.output / "start.pth")
    assert (
        tiny_run.train("--overwrite", "train.max_iter=1", "train.eval_period=0", f"train.init_checkpoint={moved}") == 0
    )
    assert moved.is_file()


def test_an_overwriting_run_that_cannot_start_removes_nothing(tiny_run):
    """The training loader is built last."""
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    before = {path: path.read_bytes() for path in tiny_run.output.glob("*.*") if path.name != "log.txt"}
    with pytest.raises((ValueError, ConfigError)):
        if tiny_run.train("--overwrite", "train.max_iter=1", "dataloader.train.num_workers=-3"):
            raise ConfigError("refused in one sentence")
    assert {path: path.read_bytes() for path in tiny_run.output.glob("*.*") if path.name != "log.txt"} == before


@pytest.mark.parametrize("name", ["weights.pth", "weights_best.pth", "metrics.json", "best.json"])
def test_files_that_training_would_replace(tmp_path: Path, name: str) -> None:
    """Also with --resume, where no checkpoint says that weights are of this run; empty metrics are of a run that has
    not begun.
    """
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"has {name}, which training would replace .* pass --overwrite"):
        check_folder(tmp_path, resume=False, overwrite=False)
    if name.endswith(".pth"):
        with pytest.raises(ConfigError, match=f"has {name}, which training would replace"):
            check_folder(tmp_path, resume=True, overwrite=False)
        (tmp_path / "model_final.pth").touch()
    check_folder(tmp_path, resume=True, overwrite=False)
    (tmp_path / name).write_text("")
    if not name.endswith(".pth"):
        check_folder(tmp_path, resume=False, overwrite=False)


def test_only_files_of_a_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "inference").mkdir()
    for name in (*OF_A_RUN, *OF_THE_USER):
        (tmp_path / name).touch()
    clear_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*OF_THE_USER, "inference"}
    check_folder(tmp_path, resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["model_best.pth", "last_checkpoint"])
def test_checkpoints_of_an_earlier_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"has checkpoints of an earlier run .{name}"):
        check_folder(tmp_path, resume=False, overwrite=False)
    check_folder(tmp_path, resume=True, overwrite=False)
    check_folder(tmp_path, resume=False, overwrite=True)
    check_folder(tmp_path / "absent", resume=False, overwrite=False)


def test_a_second_training_at_the_same_time_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Until the first has ended, whose lock a worker process does not keep."""
    monkeypatch.setattr("align_detr.engine.folder_lock._WAIT", 0.0)
    context = multiprocessing.get_context("fork")
    both = context.Barrier(2)
    with folder_lock(tmp_path):
        worker = context.Process(target=lambda: (both.wait(), both.wait()), daemon=True)
        worker.start()
        both.wait()
        here = f"process {os.getpid()} on {socket.gethostname()}"
        sentence = f"Another training writes to {tmp_path} ({here}): wait for it or set train.output_dir."
        with pytest.raises(ConfigError, match=re.escape(sentence)), folder_lock(tmp_path):
            pass
        check_folder(tmp_path, resume=False, overwrite=False)  # the lock is no file of a run
    with folder_lock(tmp_path):
        both.wait()
    worker.join()


def test_a_file_system_without_locks_is_logged(tmp_path: Path, monkeypatch, caplog) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with caplog.at_level(logging.INFO), folder_lock(tmp_path), folder_lock(tmp_path):
        assert f"{tmp_path} cannot be locked against another training (No locks available)." in caplog.text


def test_training_holds_the_lock_and_evaluation_does_not(tiny_run, monkeypatch, capsys) -> None:
    monkeypatch.setattr("align_detr.engine.folder_lock._WAIT", 0.0)
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    capsys.readouterr()
    with folder_lock(tiny_run.output):
        assert tiny_run.train("--overwrite", "train.max_iter=1") == 2
        assert f"Another training writes to {tiny_run.output} (process" in capsys.readouterr().err
        assert tiny_run.train("--eval-only") == 0
