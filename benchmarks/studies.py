"""Repeated training runs for the comparisons of RESULTS.md: resumable, several seeds, mean and spread.

A study is a list of variants. Each (variant, seed) is one run of train_net.py with a separate output folder under
output/studies/. A finished run is repeated only if its config has changed, so a study can be interrupted and resumed.
"""

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from align_detr.cpus import usable_cpus
from align_detr.lazy_config import load_config
from align_detr.paths import data_folders

ROOT = Path(__file__).resolve().parents[1]
FAILED = threading.Event()  # no run starts after one has failed


@dataclass(frozen=True)
class Variant:
    """One row of a study: its name, the config it trains, overrides of that config, and the published figure."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    published: str = ""


@dataclass(frozen=True)
class Study:
    """Variants that differ only in what is studied; `overrides` hold for all of them."""

    name: str
    variants: tuple[Variant, ...]
    overrides: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("AP", "AP50", "AP75")
    published: str = "published"

    def folder(self, variant: Variant, seed: int) -> Path:
        """Return the output folder of a run."""
        return ROOT / "output" / "studies" / self.name / f"{re.sub(r'[^a-zA-Z0-9.]+', '_', variant.name)}-{seed}"

    def overrides_of(self, variant: Variant, seed: int) -> list[str]:
        """Return the overrides of a run's config, except its output folder."""
        return [*self.overrides, *variant.overrides, f"train.seed={seed}", "train.checkpointer.max_to_keep=1"]

    def command(self, variant: Variant, seed: int) -> list[str]:
        """Return the training command of a run."""
        command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", variant.config]
        overrides = [*self.overrides_of(variant, seed), f"train.output_dir={self.folder(variant, seed)}"]
        return [*command, *overrides, "--overwrite"]  # what an interrupted run has left

    def fingerprint(self, variant: Variant, seed: int) -> str:
        """Return a hash of the run's whole config except its output folder."""
        config = OmegaConf.to_container(load_config(variant.config, self.overrides_of(variant, seed)), resolve=False)
        del config["train"]["output_dir"]
        text = json.dumps(config, sort_keys=True, default=lambda x: f"{x.__module__}.{x.__qualname__}")
        for folder in data_folders():
            text = text.replace(str(folder), "")  # the same on every machine
        return hashlib.sha256(text.encode()).hexdigest()

    def result(self, variant: Variant, seed: int) -> dict[str, float] | None:
        """Return the metrics of a finished run, or None; a run of another config does not count."""
        curve = self.curve(variant, seed)
        return None if curve is None else curve[-1]

    def curve(self, variant: Variant, seed: int) -> list[dict[str, float]] | None:
        """Return the metrics of every evaluation of a finished run, with their `iteration`, or None."""
        file = self.folder(variant, seed) / "result.json"
        if not file.is_file():
            return None
        saved = json.loads(file.read_text())
        return saved["evaluations"] if saved.get("config") == self.fingerprint(variant, seed) else None

    def run(self, variant: Variant, seed: int, threads: int, config: str) -> None:
        """Train and evaluate, unless another run has failed; the run's output goes to its folder.

        `config` is the run's fingerprint, made by the caller because detectron2 cannot load configs in several threads.
        """
        if FAILED.is_set():
            return
        folder = self.folder(variant, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").unlink(missing_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        with (folder / "printed.txt").open("w") as printed:
            done = subprocess.run(
                self.command(variant, seed), cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT
            )
        if done.returncode:
            FAILED.set()
            raise SystemExit(f"{variant.name}, seed {seed} failed: see {folder / 'printed.txt'}.")
        saved = {"config": config, "evaluations": _evaluations(folder / "metrics.json")}
        (folder / "result.json").write_text(json.dumps(saved))
        figures = ", ".join(f"{metric} {saved['evaluations'][-1][metric]:.1f}" for metric in self.metrics)
        print(f"{variant.name}, seed {seed}: {figures}", flush=True)

    def table(self, seeds: Sequence[int]) -> str:
        """Return mean and range of each variant's finished runs as a Markdown table."""
        heads = ["variant", "seeds", *self.metrics, self.published]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for variant in self.variants:
            results = [r for r in (self.result(variant, seed) for seed in seeds) if r is not None]
            cells = [mean_and_range([r[metric] for r in results]) for metric in self.metrics]
            lines.append("| " + " | ".join([variant.name, str(len(results)), *cells, variant.published]) + " |")
        return "\n".join(lines)


def _evaluations(file: Path) -> list[dict[str, float]]:
    rows = [row for row in map(json.loads, file.read_text().splitlines()) if "bbox/AP" in row]
    return [
        {
            key.removeprefix("bbox/"): value
            for key, value in row.items()
            if key == "iteration" or key.startswith("bbox/")
        }
        for row in rows
    ]


def mean_and_range(values: Sequence[float]) -> str:
    """Return the mean, with the smallest and the largest value in brackets."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def averages(study: Study, variant: Variant, seeds: Sequence[int], period: int) -> dict[int, list[float]]:
    """Return the AP of every finished run of a variant, by iteration, rounded to the period of evaluations."""
    found: dict[int, list[float]] = {}
    for curve in filter(None, (study.curve(variant, seed) for seed in seeds)):
        for evaluation in curve:
            found.setdefault(round(evaluation["iteration"] / period) * period, []).append(evaluation["AP"])
    return found


def curves_table(study: Study, seeds: Sequence[int], period: int, iterations: int) -> str:
    """Return the AP at every evaluation, mean and range, as a Markdown table."""
    steps = range(period, iterations + 1, period)
    lines = ["| AP after | " + " | ".join(map(str, steps)) + " |", "|" + "---|" * (len(steps) + 1)]
    for variant in study.variants:
        found = averages(study, variant, seeds, period)
        lines.append(f"| {variant.name} | " + " | ".join(mean_and_range(found.get(step, [])) for step in steps) + " |")
    return "\n".join(lines)


def main(study: Study, argv: Sequence[str] | None = None) -> list[int]:
    """Make the missing runs, seed by seed, print the table, and return the seeds."""
    parser = argparse.ArgumentParser(description=f"Make the missing runs of the study {study.name}.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; each gets an equal share of cores")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to run (the table shows all)")
    parser.add_argument("--table", action="store_true", help="print the table of the finished runs, run nothing")
    args = parser.parse_args(argv)
    unknown = set(args.only or ()) - {variant.name for variant in study.variants}
    if unknown:
        raise SystemExit(
            f"The study {study.name} has no variant {', '.join(sorted(unknown))}: `--table` lists its names."
        )
    variants = [v for v in study.variants if not args.only or v.name in args.only]
    if not args.table:
        threads = max(1, usable_cpus() // args.jobs)
        missing = [(v, seed) for seed in args.seeds for v in variants if study.result(v, seed) is None]
        todo = [(v, seed, threads, study.fingerprint(v, seed)) for v, seed in missing]
        with ThreadPoolExecutor(args.jobs) as pool:
            runs = [pool.submit(study.run, *run) for run in todo]
            for run in as_completed(runs):
                run.result()
    print(study.table(args.seeds))
    return args.seeds
