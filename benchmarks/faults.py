"""Runs that are killed, starved and damaged, on the CPU with worker processes: each must end as the untouched one.

    OMP_NUM_THREADS=1 python benchmarks/faults.py [--seed 0] [--only kill,cut]

A small DETR trains 60 iterations on digits. Each case does something to such a run, resumes it, and compares: weights,
averages, moments and generators bit by bit, metrics.json line by line but for times. A case survives if the run stops
or goes on as documented, nothing of it is alive 10 seconds later, and the end is that of the untouched run. What
differs at the end is counted as lost. The full disk is a tmpfs, which needs the right to mount.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from align_detr.cli.train import main as train_main
from align_detr.data.digits import DigitsSpec, ensure_digits
from align_detr.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR

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
dataloader.train.update(dataset="faults_train", total_batch_size=2, num_workers=2)
dataloader.train.mapper.augmentations = [L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5)]
dataloader.test.update(dataset="faults_val", batch_size=4)
train.update(max_iter={iterations}, eval_period=20, log_period=1, device="cpu", best="bbox/AP")
train.checkpointer.update(period={period}, max_to_keep=3)
train.ema.enabled = True
"""


class Runs:
    """Starts runs in processes forked from this one, which has imported everything, and compares their ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "faults.py"
        self.config.write_text(CONFIG.format(cache=str(root / "data"), iterations=ITERATIONS, period=PERIOD))
        self.images = [ensure_digits(DigitsSpec(*spec), root / "data") for spec in (("train", 24), ("val", 4))]
        self.untouched = root / "untouched"
        started = time.monotonic()
        status, _ = self.run(self.untouched)
        self.seconds = time.monotonic() - started
        assert status == 0, (self.untouched / "stderr").read_text()

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
        with contextlib.suppress(BaseException):
            command = ["--config-file", str(self.config), "--resume", *options, f"train.output_dir={folder}"]
            status = train_main(command)
        os._exit(status)

    def wait(self, process: int, folder: Path) -> tuple[int, str]:
        """Return status (negative: the signal) and standard error of a run, after at most two minutes."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), (self.root / f"{folder.name}.stderr").read_text()
            time.sleep(0.02)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise AssertionError("the run hangs")

    def run(self, folder: Path, *options: str) -> tuple[int, str]:
        """Run or resume to the end."""
        return self.wait(self.start(folder, *options), folder)

    def half_done(self, name: str, iteration: int = 30) -> Path:
        """Return a copy of a run that has just saved at `iteration` and has the two checkpoints before."""
        source = self.root / "half"
        if not source.exists():
            process = self.start(source)
            wait_until(lambda: (source / f"model_{iteration - 1:07d}.pth").exists())
            os.kill(process, signal.SIGKILL)
            self.wait(process, source)
            for path in source.glob("model_0*.pth"):
                if path.stem > f"model_{iteration - 1:07d}":
                    path.unlink()
            (source / "last_checkpoint").write_text(f"model_{iteration - 1:07d}.pth")
        return Path(shutil.copytree(source, self.root / name))

    def resume_and_compare(self, folder: Path, untouched: Path | None = None, *options: str) -> list[str]:
        """Resume to the end; return what differs from a run that was not touched (None: that of one process)."""
        status, error = self.run(folder, *options)
        if status:
            return [f"--resume ends with {status}: {error.strip().splitlines()[-1:]}"]
        both = (untouched or self.untouched, folder)
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


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Return whether `condition()` comes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


def left_behind(session: int) -> list[str]:
    """Return what is alive of a session after 10 seconds, as a loss."""
    return [] if wait_until(lambda: not members(session), 10.0) else [f"processes {members(session)} are alive"]


def expect(status: int, expected: int, error: str, sentence: str) -> list[str]:
    """Return what is wrong with the end of a run: its status, its sentence, a traceback."""
    if status != expected or sentence not in error or "Traceback" in error:
        return [f"status {status}, {error.strip()[-300:]!r}"]
    return []


def kills(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Kill one run at ten random moments; what is lost at its end counts for the last."""
    folder = runs.root / "killed"
    for number in range(10):
        process = runs.start(folder)
        time.sleep(rng.uniform(0.1, 0.35) * runs.seconds)
        os.kill(process, signal.SIGKILL)
        status, _ = runs.wait(process, folder)
        rows = lines_of(folder)
        wrong = [] if status in (-signal.SIGKILL, 0) else [f"status {status}"]
        wrong += left_behind(process)
        yield f"SIGKILL {number + 1}, after {rows} lines", wrong
    yield "the run that was killed ten times", runs.resume_and_compare(folder)


def lines_of(folder: Path) -> int:
    """Return the number of lines of metrics.json; a run that has not come so far has none."""
    path = folder / "metrics.json"
    return len(path.read_text().splitlines()) if path.exists() else 0


def cuts(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Cut the newest checkpoint at ten places, and turn one bit of it at three."""
    for number, share in enumerate([0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0]):
        folder = runs.half_done(f"cut{number}")
        path = newest(folder)
        size = path.stat().st_size
        os.truncate(path, min(size - 1, int(share * size)))
        yield f"newest checkpoint cut at {share:.0%}", passed_over(runs, folder)
    for number in range(3):
        folder = runs.half_done(f"flip{number}")
        content = bytearray(newest(folder).read_bytes())
        place = int(rng.uniform(0.2, 0.8) * len(content))  # among the numbers
        content[place] ^= 1 << rng.randrange(8)
        newest(folder).write_bytes(content)
        yield f"one bit of the newest checkpoint turned, byte {place}", passed_over(runs, folder)


def newest(folder: Path) -> Path:
    """Return the checkpoint that last_checkpoint names."""
    return folder / (folder / "last_checkpoint").read_text()


def passed_over(runs: Runs, folder: Path) -> list[str]:
    """Return what is lost, and whether the log says nothing of the damaged file."""
    lost = runs.resume_and_compare(folder)
    said = "the one before" in (runs.root / f"{folder.name}.stdout").read_text()
    return lost + ([] if said else ["the log does not name the damaged file"])


def signals(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Send the signals of terminals and schedulers to all processes of a run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        folder = runs.half_done(f"signal{number}")
        process = runs.start(folder)
        lines = lines_of(folder)
        wait_until(lambda f=folder, n=lines: lines_of(f) > n + rng.randrange(1, 15))
        os.killpg(process, number)
        status, error = runs.wait(process, folder)
        wrong = expect(status, EXIT_INTERRUPTED, error, "go on with --resume") + left_behind(process)
        yield f"{number.name} to all processes", wrong + runs.resume_and_compare(folder)


def full_disk(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Train on a disk with room for some checkpoints only, then give it room."""
    source = runs.half_done("source")
    room = sum(path.stat().st_size for path in source.iterdir()) + newest(source).stat().st_size // 2
    folder = runs.root / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, f"size={room}", "tmpfs", str(folder)], capture_output=True).returncode:
        print("full disk: left out, as nothing can be mounted here", flush=True)
        return
    try:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        status, error = runs.run(folder)
        wrong = expect(status, EXIT_USER_ERROR, error, "as the disk is full")
        wrong += [] if newest(folder).exists() else ["no checkpoint is left"]
        subprocess.run(["mount", "-o", f"remount,size={20 * room}", str(folder)], check=True)
        yield f"full disk of {room / 2**20:.0f} MiB", wrong + runs.resume_and_compare(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def dead_worker(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Kill a worker process, as the system does when memory is short."""
    folder = runs.half_done("worker")
    process = runs.start(folder)
    lines = lines_of(folder)
    wait_until(lambda: lines_of(folder) > lines + 3)
    os.kill(rng.choice([member for member in members(process) if member != process]), signal.SIGKILL)
    status, _ = runs.wait(process, folder)
    wrong = ([] if status > 0 else [f"status {status}"]) + left_behind(process)
    yield "SIGKILL of a worker", wrong + runs.resume_and_compare(folder)


def broken_data(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Break images and annotations under a run, then put them back."""
    image = runs.images[0] / "images" / "train_000003.png"
    places = {
        "an image cut": (image, lambda content: content[: len(content) // 2]),
        "an image of other bytes": (image, lambda content: bytes(len(content))),
        "the annotations cut": (runs.images[0] / "instances.json", lambda content: content[:-100]),
    }
    for number, (name, (path, change)) in enumerate(places.items()):
        folder = runs.half_done(f"data{number}")
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        status, error = runs.run(folder)
        path.write_bytes(whole)
        yield name, expect(status, EXIT_USER_ERROR, error, path.name) + runs.resume_and_compare(folder)


def dead_rank(runs: Runs, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Kill one of two processes, then resume both to the end of a pair that was left alone."""
    pair = ("--num-gpus", "2")
    whole, folder = runs.root / "pair", runs.root / "rank"
    status, error = runs.wait(runs.start(whole, *pair), whole)
    assert status == 0, error
    for rank in range(2):
        process = runs.start(folder, *pair)
        lines = lines_of(folder)
        wait_until(lambda n=lines: lines_of(folder) > n + rng.randrange(3, 12))
        os.kill(ranks(process)[rank], signal.SIGKILL)
        status, error = runs.wait(process, folder)
        wrong = expect(status, EXIT_USER_ERROR, error, f"Process {rank} on ") + left_behind(process)
        yield f"SIGKILL of process {rank} of two", wrong
    yield "the pair that was killed twice", runs.resume_and_compare(folder, whole, *pair)


def ranks(launcher: int) -> list[int]:
    """Return the processes of a run of several, by rank: the children of its launcher that are no helpers of Python."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"spawn_main" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
    return sorted(found)


PARTS = dict(kill=kills, cut=cuts, signal=signals, disk=full_disk, worker=dead_worker, rank=dead_rank, data=broken_data)


def main() -> int:
    """Run all cases, or the parts of --only; return 0 if all survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places of the faults")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in every process, and nothing that a fork would lose
    survived = cases = lost = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        runs = Runs(Path(folder))
        print(f"untouched run: {ITERATIONS} iterations in {runs.seconds:.1f} s", flush=True)
        for part in args.only.split(","):
            started = time.monotonic()
            for name, wrong in PARTS[part](runs, random.Random(args.seed)):
                cases, survived, lost = cases + 1, survived + (not wrong), lost + len(wrong)
                seconds = time.monotonic() - started
                print(f"{part}: {name}: {'; '.join(wrong[:5]) or 'survived'} ({seconds:.1f} s)", flush=True)
                started = time.monotonic()
    print(f"faults: {survived} of {cases} survived, lost={lost}")
    return 0 if survived == cases else 1


if __name__ == "__main__":
    sys.exit(main())
