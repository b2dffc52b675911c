"""Runs that are interrupted and resumed end bitwise as those that are not."""

import errno
import io
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detector
import torch
from detectron2.engine import HookBase

from align_detr.checkpoint.files import describe_disk
from align_detr.data import build_train_loader
from align_detr.engine import outputs
from align_detr.errors import EXIT_INTERRUPTED, EXIT_KEYBOARD

TIMES = {"time", "data_time", "eta_seconds"}
OPTIONS = ["train.max_iter=9", "train.checkpointer.period=2", "train.eval_period=3", "train.ema.enabled=True"]
OPTIONS += ["train.log_period=2", "dataloader.train.seed=null", "train.best=bbox/AP"]


class AtIteration(HookBase):
    """Calls a function after the hooks before it, in one iteration."""

    def __init__(self, iteration: int, function: Callable[[], None]) -> None:
        self.iteration, self.function = iteration, function

    def after_step(self) -> None:
        if self.trainer.iter == self.iteration:
            self.function()


class Killed(BaseException):
    """An end at any line, as by SIGKILL, but in this process."""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that puts a hook into the next run, at an index in the list of output hooks."""
    original = outputs.output_hooks

    def put(iteration: int, function: Callable[[], None], index: int) -> None:
        def output_hooks(*args: Any, **kwargs: Any) -> list[HookBase]:
            hooks = original(*args, **kwargs)
            hooks.insert(index if index >= 0 else len(hooks) + index, AtIteration(iteration, function))
            return hooks

        monkeypatch.setattr("align_detr.engine.run.output_hooks", output_hooks)

    yield put


@pytest.fixture
def augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mapper and model draw from all generators: workers are forked and see the mapper as well."""
    plain = tiny_detector.map_record
    forward = tiny_detector.TinyDetector.forward

    def map_record(record: dict) -> dict:
        mapped = plain(record)
        noise = np.random.randint(0, 40) + int(torch.randint(0, 40, ()))
        return {**mapped, "image": (mapped["image"].int() + noise).clamp(0, 255).to(torch.uint8)}

    def noisy(self: Any, inputs: list[dict]) -> Any:
        found = forward(self, inputs)
        if not self.training:
            return found
        return {name: loss * (1 + 0.1 * torch.rand(()) + 0.1 * float(np.random.rand())) for name, loss in found.items()}

    monkeypatch.setattr(tiny_detector, "map_record", map_record)
    monkeypatch.setattr(tiny_detector.TinyDetector, "forward", noisy)


def kill() -> None:
    raise Killed


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by path."""
    if isinstance(value, dict):
        return {k: v for key, each in value.items() for k, v in flat(each, f"{name}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, each in enumerate(value) for k, v in flat(each, f"{name}.{i}").items()}
    return {name: value}


def assert_same_end(a: Path, b: Path) -> None:
    """Weights, averages, optimizer and generators at the end, and metrics.json but for times, are the same bits."""
    final = [flat(torch.load(folder / "model_final.pth", weights_only=True)) for folder in (a, b)]
    for parts in final:
        for key in [key for key in parts if ".numbers." in key or key.startswith(".config")]:
            del parts[key]
    assert final[0].keys() == final[1].keys()
    for key, value in final[0].items():
        same = torch.equal(value, final[1][key]) if isinstance(value, torch.Tensor) else value == final[1][key]
        assert same, key
    rows = [[json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()] for folder in (a, b)]
    assert [{k: v for k, v in row.items() if k not in TIMES} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in TIMES} for row in rows[1]
    ]
    assert (a / "best.json").read_text() == (b / "best.json").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_as_the_uninterrupted_one(tiny_run, tmp_path, augmented, at, workers):
    """Killed in the step, right behind the checkpoint, behind the evaluation, before and behind the writers."""
    options = [*OPTIONS, f"dataloader.train.num_workers={workers}", "dataloader.train.aspect_ratio_grouping=True"]
    assert tiny_run.train(*options) == 0
    other = tmp_path / "killed"
    for iteration, index in ((1, 1), (2, 0), (5, 3), (7, -2), (8, 1)):
        at(iteration, kill, index)
        with pytest.raises(Killed):
            tiny_run.train("--resume", f"train.output_dir={other}", *options)
    at(-1, kill, 0)
    assert tiny_run.train("--resume", f"train.output_dir={other}", *options) == 0
    assert_same_end(tiny_run.output, other)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_finishes_the_step_and_saves(tiny_run, tmp_path, augmented, at, capfd, number):
    """The status and the sentence say that --resume goes on; the end is that of the uninterrupted run."""
    handler = signal.getsignal(number)
    assert tiny_run.train(*OPTIONS) == 0
    other = tmp_path / "interrupted"
    capfd.readouterr()
    at(4, lambda: os.kill(os.getpid(), number), 0)
    assert tiny_run.train(f"train.output_dir={other}", *OPTIONS) == EXIT_INTERRUPTED
    first, last = capfd.readouterr().err.splitlines()
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert first == f"{name}: finishing the step, then saving; a second one ends at once."
    saved = other / "model_0000004.pth"
    assert last.startswith(f"{name}: training stops after iteration 5 of 9. {saved} is saved: go on with --resume")
    assert signal.getsignal(number) is handler
    at(-1, kill, 0)
    assert tiny_run.train("--resume", f"train.output_dir={other}", *OPTIONS) == 0
    assert_same_end(tiny_run.output, other)


def test_a_second_signal_ends_at_once(tiny_run, at, capfd, monkeypatch):
    """Nothing is saved; two within a second are one, as launchers pass signals on."""
    monkeypatch.setattr("align_detr.engine.interruption._ONE", -1.0)
    at(2, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)], 0)
    assert tiny_run.train("train.max_iter=4", "train.checkpointer.period=2") == EXIT_KEYBOARD
    assert "error: Ctrl-C has ended the command at once" in capfd.readouterr().err
    assert (tiny_run.output / "last_checkpoint").read_text() == "model_0000001.pth"


def test_the_number_of_workers_does_not_change_the_images(tiny_run, augmented):
    """Nor does the batch that the stream begins with."""
    tiny_detector.register(tiny_run.output.parent / "data")

    def batches(workers: int, start: int) -> list[torch.Tensor]:
        options = {"total_batch_size": 3, "seed": 7, "aspect_ratio_grouping": False}
        loader = build_train_loader(
            dataset="tiny_train", mapper=tiny_detector.map_record, num_workers=workers, **options
        )
        loader.start_at(start)
        return [image["image"] for batch in islice(loader, 6 - start) for image in batch]

    one = batches(1, 0)
    for other in (batches(2, 0), [*one[:12], *batches(2, 4)]):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_as_many_checkpoints_are_kept_after_resumptions(tiny_run):
    options = ["train.checkpointer.period=1", "train.checkpointer.max_to_keep=2", "train.eval_period=0"]
    for number in (2, 4, 6):
        assert tiny_run.train("--resume", f"train.max_iter={number}", *options) == 0
    assert sorted(path.name for path in tiny_run.output.glob("model_0*")) == ["model_0000004.pth", "model_0000005.pth"]


@pytest.mark.parametrize("damage", ["flip", "half", "empty", "absent", "tag"])
def test_a_damaged_newest_checkpoint_is_passed_over(tiny_run, capsys, damage):
    """In one line; also one whose numbers alone are changed, which torch.load does not see."""
    options = ["train.max_iter=4", "train.checkpointer.period=1", "train.eval_period=0"]
    assert tiny_run.train(*options) == 0
    newest = tiny_run.output / "model_final.pth"
    content = bytearray(newest.read_bytes())
    weight = torch.load(newest, weights_only=True)["model"]["backbone.weight"].numpy().tobytes()
    content[content.index(weight) + 5] ^= 1
    if damage == "absent":
        newest.unlink()
    elif damage == "tag":
        (tiny_run.output / "last_checkpoint").write_text("")
    else:
        newest.write_bytes({"flip": content, "half": content[: len(content) // 2], "empty": b""}[damage])
    before = (tiny_run.output / "metrics.json").read_text()
    capsys.readouterr()
    assert tiny_run.train("--resume", *options) == 0
    out = capsys.readouterr().out
    assert "Nothing is left to train of 4 iterations" in out
    line = f"{newest} cannot be used ("
    assert (line in out and "taking model_0000003.pth, the one before." in out) == (damage != "tag")
    assert len(before.splitlines()) == len((tiny_run.output / "metrics.json").read_text().splitlines())


def test_no_checkpoint_that_can_be_used_is_one_sentence(tiny_run, capsys):
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    (tiny_run.output / "model_final.pth").write_bytes(b"PK\x03\x04 half")
    (tiny_run.output / "model_0000000.pth").write_bytes(b"")
    assert tiny_run.train("--resume", "train.max_iter=1") == 2
    assert "No checkpoint of" in (err := capsys.readouterr().err) and "--overwrite" in err
    assert tiny_run.train("--eval-only") == 2
    assert "is damaged or not a PyTorch checkpoint" in capsys.readouterr().err


def test_a_full_disk_leaves_the_earlier_checkpoint(tiny_run, capsys, monkeypatch):
    """One sentence, no half file, and the run goes on when there is space."""
    options = ["train.max_iter=4", "train.checkpointer.period=1", "train.eval_period=0"]
    room = [60_000]

    class Disk:
        """The real file behind a disk with little room."""

        def __init__(self, path: Path, mode: str) -> None:
            self.file = io.FileIO(path, mode)

        def __enter__(self) -> "Disk":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, content: Any) -> int:
            room[0] -= len(content)
            if room[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr("align_detr.checkpoint.files.open", Disk, raising=False)
    assert tiny_run.train(*options) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "as the disk is full" in err and len(err.splitlines()) == 1
    last = (tiny_run.output / "last_checkpoint").read_text()
    assert torch.load(tiny_run.output / last, weights_only=True)["trainer"]["iteration"] >= 0
    assert not [path for path in tiny_run.output.iterdir() if path.name.endswith(".unfinished")]
    room[0] = 10**9
    assert tiny_run.train("--resume", *options) == 0
    assert [row["iteration"] for row in tiny_run.metrics()] == [0, 1, 2, 3, 4]


def test_only_training_removes_what_is_half_written(tiny_run):
    """An evaluation, or a second run that is refused, beside a training leaves the file that this is writing."""
    short = ["train.max_iter=1", "train.eval_period=0"]
    assert tiny_run.train(*short) == 0
    unfinished = tiny_run.output / ".model_0000001.pth.unfinished"
    unfinished.touch()
    assert tiny_run.train("--eval-only") == 0 and tiny_run.train(*short) == 2
    assert unfinished.exists()
    assert tiny_run.train("--resume", *short) == 0
    assert not unfinished.exists()


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_on_a_full_disk_prints_no_traceback(tiny_run, capsys):
    """Nor does the sentence on a file whose name is not known say how much is free elsewhere."""
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0", "dataloader.test=null") == 0
    (handler,) = (
        each
        for each in logging.getLogger("align_detr").handlers
        if isinstance(each.stream, io.IOBase) and str(getattr(each.stream, "name", "")).endswith("log.txt")
    )
    stream = handler.setStream(Full())
    logging.getLogger("align_detr").info("A line.")
    handler.setStream(stream)
    assert "Logging error" not in capsys.readouterr().err
    assert "MiB free" not in describe_disk(None, OSError(errno.ENOSPC, "No space left on device"))


def test_a_run_that_ended_before_its_first_checkpoint_starts_metrics_anew(tiny_run, tmp_path):
    """Its lines would stand there twice, and the one that was being written would be cut off."""
    tiny_run.output.mkdir()
    (tiny_run.output / "metrics.json").write_text('{"iteration": 0, "total_loss": 9.0}\n{"iter')
    options = ["train.max_iter=2", "train.eval_period=0", "--resume"]
    assert tiny_run.train(*options) == tiny_run.train(*options, f"train.output_dir={tmp_path / 'fresh'}") == 0
    assert [row["iteration"] for row in tiny_run.metrics()] == [
        row["iteration"] for row in tiny_run.metrics(tmp_path / "fresh")
    ]
