"""Runs on the CPU that are disturbed, and how their ends are compared: what benchmarks/faults.py is made of."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from align_detr.cli.train import main as train_main
from align_detr.data.digits import DigitsSpec, ensure_digits
from align_detr.modeling import DETR

ITERATIONS = 60
PERIOD = 5
TIMES = {"time", "data_time"}
CONFIG = """
from pathlib import Path
from align_detr import model_zoo
from align_detr.data.digits import DigitsSpec, register_digits
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

cfg = model_zoo.get_config("quickstart/digits_detr.py")
dataloader, lr_multiplier, model, optimizer, train = (
    cfg[key] for key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)
for split, images in (("train", 24), ("val", 4)):
    register_digits(f"faults_{{split}}", DigitsSpec(split, images), Path({cache!r}))
model.update(_target_="faulty_runs.SpoiledDETR", spoiled="")
dataloader.train.update(dataset="faults_train", total_batch_size=2, num_workers=2)
dataloader.train.mapper.augmentations = [L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5)]
dataloader.test.update(dataset="faults_val", batch_size=4)
train.update(max_iter={iterations}, eval_period=20, log_period=1, device="cpu", best="bbox/AP")
train.checkpointer.update(period={period}, max_to_keep=3)
train.ema.enabled = True
"""


class SpoiledDETR(DETR):
    """A DETR whose box loss is NaN in a step with the image file `spoiled` ("": in none)."""

    def __init__(self, *, spoiled: str, **parts: Any) -> None:
        super().__init__(**parts)
        self.spoiled = spoiled

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Any:
        """Return losses or detections."""
        found = super().forward(batched_inputs)
        if self.training and any(Path(x["file_name"]).name == self.spoiled for x in batched_inputs):
            found["loss_bbox"] = found["loss_bbox"] * float("nan")
        return found


class Runs:
    """Starts runs in processes forked from this one, which has imported everything, and compares their ends.

    `options` are arguments of the command that all runs of a comparison share.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "faults.py"
        self.config.write_text(CONFIG.format(cache=str(root / "data"), iterations=ITERATIONS, period=PERIOD))
        self.images = [ensure_digits(DigitsSpec(*spec), root / "data") for spec in (("train", 24), ("val", 4))]
        self._untouched: dict[tuple[str, ...], Path] = {}
        self._half: dict[tuple[str, ...], Path] = {}
        started = time.monotonic()
        self.untouched()
        self.seconds = time.monotonic() - started

    def untouched(self, *options: str) -> Path:
        """Return the folder of the run that nothing disturbs."""
        if options not in self._untouched:
            folder = self.root / f"untouched{len(self._untouched)}"
            status, error = self.run(folder, *options)
            if status:
                raise RuntimeError(f"The untouched run ends with status {status}: {error}")
            self._untouched[options] = folder
        return self._untouched[options]

    def start(self, folder: Path, *options: str) -> int:
        """Start or resume the run of `folder` in a session of its own; return its process."""
        folder.mkdir(exist_ok=True)
        process = os.fork()
        if process:
            return process
        os.setsid()
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(self.root / f"{folder.name}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        status = 1
        arguments = ["--config-file", str(self.config), "--resume", f"train.output_dir={folder}", *options]
        with contextlib.suppress(BaseException):
            status = train_main(arguments)
        os._exit(status)

    def wait(self, process: int, folder: Path) -> tuple[int, str]:
        """Return status (negative: the signal) and standard error of a run, after at most three minutes."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), (self.root / f"{folder.name}.stderr").read_text()
            time.sleep(0.02)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return 1, "the run hangs"

    def run(self, folder: Path, *options: str) -> tuple[int, str]:
        """Run or resume to the end."""
        return self.wait(self.start(folder, *options), folder)

    def half_done(self, name: str, *options: str, iteration: int = 30) -> Path:
        """Return a copy of a run that has just saved at `iteration` and has the two checkpoints before."""
        source = self._half.setdefault(options, self.root / f"half{len(self._half)}")
        if not source.exists():
            process = self.start(source, *options)
            if not wait_until(lambda: (source / f"model_{iteration - 1:07d}.pth").exists()):
                raise RuntimeError(f"{source} comes to no checkpoint of iteration {iteration}.")
            os.killpg(process, signal.SIGKILL)
            self.wait(process, source)
            for path in source.glob("model_0*.pth"):
                if path.stem > f"model_{iteration - 1:07d}":
                    path.unlink()
            (source / "last_checkpoint").write_text(f"model_{iteration - 1:07d}.pth")
        return Path(shutil.copytree(source, self.root / name))

    def resume_and_compare(self, folder: Path, *options: str) -> list[str]:
        """Resume to the end; return what differs from the untouched run."""
        status, error = self.run(folder, *options)
        if status:
            return [f"--resume ends with {status}: {error.strip().splitlines()[-1:]}"]
        both = (self.untouched(*options), folder)
        ends = [leaves(torch.load(each / "model_final.pth", weights_only=True)) for each in both]
        lost = [key for key in ends[0].keys() | ends[1].keys() if not same(ends[0].get(key), ends[1].get(key))]
        rows = [metrics(each) for each in both]
        return lost + [f"line {i} of metrics.json" for i, (a, b) in enumerate(pad(*rows)) if a != b]


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by path, without config and times."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {name: value}
    kept = ((key, each) for key, each in items if key not in ("config", *TIMES))
    return {k: v for key, each in kept for k, v in leaves(each, f"{name}.{key}").items()}


def same(a: Any, b: Any) -> bool:
    """Return whether two leaves are equal bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return a == b or (a != a and b != b)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.json without times."""
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def pad(a: list[Any], b: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Return pairs of both lists, the shorter one filled with None."""
    size = max(len(a), len(b))
    return zip(a + [None] * (size - len(a)), b + [None] * (size - len(b)), strict=True)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Return whether `condition()` comes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def members(session: int, command: str = "") -> list[int]:
    """Return the living processes of a session with `command` in their command line, in the order of their start."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
            if int(of) == session and state != "Z" and command in (path.parent / "cmdline").read_text():
                found.append(int(path.parent.name))
    return sorted(found)


def left_behind(session: int) -> list[str]:
    """Return what is alive of a session after 10 seconds, as a loss."""
    return [] if wait_until(lambda: not members(session), 10.0) else [f"processes {members(session)} are alive"]


def expect(status: int, expected: int, error: str, sentence: str) -> list[str]:
    """Return what is wrong with the end of a run: its status, its sentence, a traceback."""
    if status != expected or sentence not in error or "Traceback" in error:
        return [f"status {status}, {error.strip()[-300:]!r}"]
    return []


def lines_of(folder: Path) -> int:
    """Return the number of lines of metrics.json; a run that has not come so far has none."""
    path = folder / "metrics.json"
    return len(path.read_text().splitlines()) if path.exists() else 0


def newest(folder: Path) -> Path:
    """Return the checkpoint that last_checkpoint names."""
    return folder / (folder / "last_checkpoint").read_text()
