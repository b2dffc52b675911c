"""Runs that are killed, starved and damaged, on the CPU with worker processes: each must end as the untouched one.

    OMP_NUM_THREADS=1 python benchmarks/faults.py [--seed 0] [--only kill,cut]

A small DETR trains 60 iterations on digits. Each case does something to such a run, resumes it, and compares: weights,
averages, moments and generators bit by bit, metrics.json line by line but for times. A case survives if the run stops
or goes on as documented, nothing of it is alive 10 seconds later, and the end is that of the untouched run. What
differs at the end is counted as lost. The full disk is a tmpfs, which needs the right to mount.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from faulty_runs import (
    ITERATIONS,
    Runs,
    expect,
    left_behind,
    lines_of,
    members,
    metrics,
    newest,
    wait_until,
)

from align_detr.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR

TWO_PROCESSES = ("--num-gpus", "2", "dataloader.train.num_workers=1")
SPOILED = "model.spoiled=train_000003.png"
SKIP = (SPOILED, "train.on_nonfinite=skip")
Cases = Iterator[tuple[str, list[str]]]


def kills(runs: Runs, rng: random.Random) -> Cases:
    """Kill one run at ten random moments, the first before its first step; what is lost counts for its end."""
    folder = runs.root / "killed"
    for number in range(10):
        process = runs.start(folder)
        goal = lines_of(folder) + rng.randint(1, 6) if number else 0
        wait_until(lambda lines=goal: lines_of(folder) >= lines)
        time.sleep(rng.uniform(0.0, 0.5))
        rows = lines_of(folder)
        os.kill(process, signal.SIGKILL)
        status, _ = runs.wait(process, folder)
        wrong = [] if status == -signal.SIGKILL else [f"status {status}"]
        wrong += left_behind(process)
        yield f"SIGKILL {number + 1}, after {rows} lines", wrong
    yield "the run that was killed ten times", runs.resume_and_compare(folder)


def cuts(runs: Runs, rng: random.Random) -> Cases:
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


def passed_over(runs: Runs, folder: Path) -> list[str]:
    """Return what is lost, and whether the log says nothing of the damaged file."""
    lost = runs.resume_and_compare(folder)
    said = "the one before" in (runs.root / f"{folder.name}.stdout").read_text()
    return lost + ([] if said else ["the log does not name the damaged file"])


def small_files(runs: Runs, rng: random.Random) -> Cases:
    """Cut what a run keeps beside its checkpoints."""
    folder = runs.half_done("tag")
    os.truncate(folder / "last_checkpoint", 0)
    yield "last_checkpoint cut to nothing", runs.resume_and_compare(folder)
    folder = runs.half_done("line")
    with (folder / "metrics.json").open("a") as file:
        file.write('{"bbox/AP": 0.0, "ite')
    yield "a last line of metrics.json that is cut", runs.resume_and_compare(folder)
    folder = runs.half_done("best")
    whole = (folder / "best.json").read_bytes()
    os.truncate(folder / "best.json", len(whole) // 2)
    status, error = runs.run(folder)
    (folder / "best.json").write_bytes(whole)
    wrong = expect(status, EXIT_USER_ERROR, error, "best.json is damaged")
    yield "best.json cut, then put back", wrong + runs.resume_and_compare(folder)


def signals(runs: Runs, rng: random.Random) -> Cases:
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


def full_disk(runs: Runs, rng: random.Random) -> Cases:
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


def dead_worker(runs: Runs, rng: random.Random) -> Cases:
    """Kill a worker process, as the system does when memory is short."""
    folder = runs.half_done("worker")
    process = runs.start(folder)
    lines = lines_of(folder)
    wait_until(lambda: lines_of(folder) > lines + 3)
    os.kill(rng.choice([member for member in members(process) if member != process]), signal.SIGKILL)
    status, error = runs.wait(process, folder)
    wrong = expect(status, EXIT_USER_ERROR, error, "was killed by SIGKILL") + left_behind(process)
    yield "SIGKILL of a worker", wrong + runs.resume_and_compare(folder)


def hanging_worker(runs: Runs, rng: random.Random) -> Cases:
    """Put a pipe in place of an image, which nobody writes to: whoever opens it waits, as at a disk that is gone."""
    folder = runs.half_done("hang")
    image = runs.images[0] / "images" / "train_000003.png"
    image.rename(image.with_suffix(".kept"))
    os.mkfifo(image)
    process = runs.start(folder, "train.data_timeout=5")
    status, error = runs.wait(process, folder)
    image.with_suffix(".kept").replace(image)
    wrong = expect(status, EXIT_USER_ERROR, error, "has sent no batch for 5 seconds") + left_behind(process)
    yield "an image that is never read to its end", wrong + runs.resume_and_compare(folder)


def ranks(runs: Runs, rng: random.Random) -> Cases:
    """Kill one of the two processes of a run."""
    for rank in (0, 1):
        folder = runs.half_done(f"rank{rank}", *TWO_PROCESSES)
        process = runs.start(folder, *TWO_PROCESSES)
        lines = lines_of(folder)
        wait_until(lambda f=folder, n=lines: lines_of(f) > n + 3)
        os.kill(members(process, "spawn_main")[rank], signal.SIGKILL)
        status, error = runs.wait(process, folder)
        last = error.strip().splitlines()[-1]  # a worker of the dead process may have said before that it lost it
        wrong = expect(status, EXIT_USER_ERROR, last, f"Process {rank} on ") + left_behind(process)
        yield f"SIGKILL of process {rank} of two", wrong + runs.resume_and_compare(folder, *TWO_PROCESSES)


def not_finite(runs: Runs, rng: random.Random) -> Cases:
    """Give a batch a loss that is NaN: it stops training, or is left out, also across a kill."""
    folder = runs.half_done("nan")
    status, error = runs.run(folder, SPOILED)
    wrong = expect(status, EXIT_USER_ERROR, error, "Training diverged at iteration")
    wrong += [] if list(folder.glob("fault_*.pth")) else ["no report is left"]
    yield "a loss that is NaN", wrong + runs.resume_and_compare(folder)
    folder = runs.half_done("skip", *SKIP)
    lost = runs.resume_and_compare(folder, *SKIP)
    counts = [row["skipped_steps"] for row in metrics(folder) if "skipped_steps" in row]
    lost += [] if counts and counts == list(range(1, len(counts) + 1)) else [f"steps left out are counted as {counts}"]
    yield f"a loss that is NaN in {len(counts)} steps, left out, and SIGKILL between them", lost


def broken_data(runs: Runs, rng: random.Random) -> Cases:
    """Break images and annotations under a run, then put them back."""
    image = runs.images[0] / "images" / "train_000003.png"
    places = {
        "an image cut": (image, lambda content: content[: len(content) // 2]),
        "an image of other bytes": (image, lambda content: bytes(len(content))),
        "an image that is empty": (image, lambda content: b""),
        "the annotations cut": (runs.images[0] / "instances.json", lambda content: content[:-100]),
    }
    for number, (name, (path, change)) in enumerate(places.items()):
        folder = runs.half_done(f"data{number}")
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        status, error = runs.run(folder)
        path.write_bytes(whole)
        yield name, expect(status, EXIT_USER_ERROR, error, path.name) + runs.resume_and_compare(folder)


PARTS = dict(
    kill=kills,
    cut=cuts,
    file=small_files,
    signal=signals,
    disk=full_disk,
    worker=dead_worker,
    hang=hanging_worker,
    rank=ranks,
    nan=not_finite,
    data=broken_data,
)


def main() -> int:
    """Run all cases, or the parts of --only; return 0 if all survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places of the faults")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in every process, and nothing that a fork would lose
    survived = cases = lost = 0
    begun = time.monotonic()
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
    print(f"{cases} cases in {(time.monotonic() - begun) / 60:.0f} minutes")
    print(f"faults: {survived} of {cases} survived, lost={lost}")
    return 0 if survived == cases else 1


if __name__ == "__main__":
    sys.exit(main())
