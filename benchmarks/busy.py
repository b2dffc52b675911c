"""A training step beside other programs: one thread, PyTorch's default, threads that always sleep, and our choice.

    python benchmarks/busy.py [--config quickstart/digits.py] [--side 128] [--batch 8] [--rounds 3] [--json FILE]

The detector of a config trains on noise images. Loads are made here: none, a busy loop, as many busy loops as there are
CPUs, and another PyTorch process that trains a small convolution with as many threads as there are CPUs. Each way to
wait has a process of its own, and they take turns under every load; some seconds of steps before each measurement are
not counted, in which `sharing_cpus` finds out about the load. A measurement during which programs that are not of this
benchmark took a tenth of a CPU is made again, at most `--patience` times. The table has the median of the steps, their
range, the median over that of one thread beside the same load, and the CPUs that programs not of this benchmark took.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

from align_detr.cpus import affinity, idle_seconds, usable_cpus

BUSY = "while True: pass"
PYTORCH = """
import torch
convolution, images = torch.nn.Conv2d(16, 16, 3, padding=1), torch.randn(4, 16, 64, 64)
while True:
    convolution(images).relu().sum().backward()
"""
LOADS = {
    "quiet": [],
    "a busy loop": [BUSY],
    "a busy loop per CPU": [BUSY] * usable_cpus(),
    "another PyTorch process": [PYTORCH],
}
SHORT_LOADS = ("quiet", "a busy loop")
SETTLE, SETTLE_SHORT = 2.5, 2.2  # seconds before a measurement
LONGEST = 15.0  # seconds of a measurement
QUIET = 0.1  # CPUs that other programs may take


@dataclass(frozen=True)
class Measurement:
    """The times of steps, and how many CPUs other programs than those of the benchmark took meanwhile."""

    times: list[float]
    foreign: float


@dataclass(frozen=True)
class Way:
    """How a process's threads wait: its environment, one thread or all, and whether it follows the load."""

    environment: dict[str, str] = field(default_factory=dict)
    one_thread: bool = False
    follows: bool = False


WAYS = {
    "one thread": Way(one_thread=True),
    "all threads, as PyTorch does": Way(),
    "all threads, always asleep": Way({"OMP_WAIT_POLICY": "PASSIVE"}),
    "all threads, by the load (ours)": Way(follows=True),
}
OURS, DEFAULT, ONE = "all threads, by the load (ours)", "all threads, as PyTorch does", "one thread"


def step_of(config: str, side: int, batch: int) -> Callable[[], None]:
    """Return a function that makes one training step."""
    import torch
    from detectron2.config import instantiate
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    from align_detr import model_zoo

    torch.manual_seed(0)
    cfg = model_zoo.get_config(config)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)

    def image() -> dict[str, Any]:
        corners = torch.rand(4, 2, 2).sort(dim=1).values * side
        classes = torch.randint(int(model.num_classes), (4,))
        instances = Instances((side, side), gt_boxes=Boxes(corners.flatten(1)), gt_classes=classes)
        pixels = torch.randint(256, (3, side, side), dtype=torch.uint8)
        return {"image": pixels, "height": side, "width": side, "instances": instances}

    images = [image() for _ in range(batch)]

    def step() -> None:
        optimizer.zero_grad()
        with EventStorage(0):
            losses = model(images)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def work(args: argparse.Namespace) -> None:
    """Be a process that trains: for every line "settle seconds" of the input, print the times of steps."""
    import torch

    from align_detr.engine.shared_cpus import sharing_cpus

    way = WAYS[args.work]
    if way.one_thread:
        torch.set_num_threads(1)
    step = step_of(args.config, args.side, args.batch)
    step()
    with sharing_cpus() if way.follows else nullcontext():
        print("ready", flush=True)
        for line in sys.stdin:
            settle, measure = map(float, line.split())
            timed(step, settle)
            print(json.dumps(timed(step, min(measure, LONGEST))), flush=True)


def timed(step: Callable[[], None], seconds: float) -> list[float]:
    """Return the times of the steps of `seconds`, at least one."""
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def environment(way: Way) -> dict[str, str]:
    """Return this process's environment without OpenMP's settings, and with those of a way."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    return plain | way.environment


@contextmanager
def processes(args: argparse.Namespace) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """Yield a process per way that is ready to train."""
    options = ["--config", args.config, "--side", str(args.side), "--batch", str(args.batch)]
    names = (ONE, OURS) if args.short else tuple(WAYS)
    started = {
        name: subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--work", name, *options],
            env=environment(WAYS[name]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    try:
        for process in started.values():
            _read(process.stdout)
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@contextmanager
def load(programs: list[str]) -> Iterator[list[int]]:
    """Run other Python programs meanwhile; yield their process ids."""
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment(Way())) for program in programs]
    try:
        time.sleep(3.0 if PYTORCH in programs else 0.3)  # its imports
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(process: "subprocess.Popen[str]", settle: float, seconds: float, load: list[int]) -> Measurement:
    """Return what a process has measured beside the processes `load`."""
    assert process.stdin is not None
    pids = [process.pid, *load]
    process.stdin.write(f"{settle} {seconds}\n")
    process.stdin.flush()
    start, before = time.perf_counter(), _unforeign(pids)
    times: list[float] = json.loads(_read(process.stdout))
    used = (_unforeign(pids) - before) / (time.perf_counter() - start)
    return Measurement(times, len(affinity()) - used)


def _unforeign(pids: list[int]) -> float:
    """Return the seconds that the CPUs were idle or of these processes."""
    ticks = 0
    for pid in pids:
        values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])  # in user and in system mode
    return (idle_seconds(affinity()) or 0.0) + ticks / os.sysconf("SC_CLK_TCK")


def _read(stream: IO[str] | None) -> str:
    line = stream.readline() if stream else ""
    if not line:
        raise RuntimeError("A process that trains has ended; its error stands above.")
    return line


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table: a row per load and way."""
    lines = ["| beside | threads | step, ms (range) | over one thread | others |", "|---|---|---|---|---|"]
    for row in rows:
        middle, low, high = (f"{1000 * row[name]:.0f}" for name in ("median", "least", "most"))
        numbers = f"{middle} ({low} to {high}) | {row['ratio']:.2f} | {row['foreign']:.2f}"
        lines.append(f"| {row['load']} | {row['way']} | {numbers} |")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per load and way."""
    loads = SHORT_LOADS if args.short else tuple(LOADS)
    found: dict[tuple[str, str], list[Measurement]] = {}
    settle = SETTLE_SHORT if args.short else SETTLE
    with processes(args) as ways:
        for _ in range(1 if args.short else args.rounds):
            for name in loads:
                with load(LOADS[name]) as pids:
                    for way, process in ways.items():
                        tries = (measure(process, settle, args.seconds, pids) for _ in range(1 + args.patience))
                        found.setdefault((name, way), []).append(least_disturbed(tries))
    medians = {key: median(time for one in several for time in one.times) for key, several in found.items()}
    return [
        {
            "load": name,
            "way": way,
            "median": medians[name, way],
            "least": min(min(one.times) for one in several),
            "most": max(max(one.times) for one in several),
            "ratio": medians[name, way] / medians[name, ONE],
            "foreign": max(one.foreign for one in several),
        }
        for (name, way), several in found.items()
    ]


def least_disturbed(tries: Iterable[Measurement]) -> Measurement:
    """Return the first undisturbed measurement, else that with the fewest CPUs for other programs."""
    seen = []
    for one in tries:
        if one.foreign <= QUIET:
            return one
        seen.append(one)
    return min(seen, key=lambda one: one.foreign)


def main() -> None:
    """Measure and print the table; the last line has the two numbers that count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart/digits.py", help="path, or name in the model zoo")
    parser.add_argument("--side", type=int, default=128, help="of the square images, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--patience", type=int, default=2, help="how often a disturbed measurement is made again")
    parser.add_argument("--short", action="store_true", help="one thread and ours, one round of two loads")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--work", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args)
        return
    rows = run(args)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({"cpus": usable_cpus(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    most = max(row["ratio"] for row in rows if row["way"] == OURS and row["load"] != "quiet")
    quiet = {row["way"]: row["median"] for row in rows if row["load"] == "quiet"}
    over = f"; quiet, {quiet[OURS] / quiet[DEFAULT]:.2f} times PyTorch's default" if DEFAULT in quiet else ""
    print(f"busy: on {usable_cpus()} CPUs, at most {most:.2f} times one thread's time beside a load{over}")


if __name__ == "__main__":
    main()
