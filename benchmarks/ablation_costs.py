"""What each idea of the ablations costs: time and memory of a training step, and time of evaluation, beside "k 3".

    python benchmarks/ablation_costs.py [--steps 12] [--only NAME ...] [--json FILE]

The variants of ablations.py whose names begin with "k 3, ", but for those of alpha and weights, on the digits, one
thread. A step is the whole of it: reading 8 images, losses, gradients, clipping, AdamW, average. Variants take turns,
step by step, at places spread evenly over training, since some do something in a part of it only; all get the same
images (before they are mixed). Times, of the clock and of the processor, are medians; the ratios are means over these
places of the ratio to "k 3" at the same place. Memory is the most that a step has allocated at a time beside weights
and images, the larger of that at 0.3 and at 0.9 of training. Evaluation is one batch of 8 images, in time of the
processor.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ablations import STUDY
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from memory import peak_of_step
from studies import Variant

from align_detr.data.build import TrainLoader
from align_detr.engine.learner import build_learner
from align_detr.engine.plan import plan_run
from align_detr.engine.progress import tell_progress
from align_detr.engine.trainer import Trainer
from align_detr.lazy_config import load_config, settle

BASE = "k 3"
WARM_UP = (0.1, 0.9)  # places of steps that are not measured: the matching is compiled, for early and late costs
LEFT_OUT = ("unweighted", "alpha")
MEMORY_AT = (0.3, 0.9)


class Place:
    """The iterator of a training loader, to be moved to any place of training."""

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader
        self.batches: Iterator[Any] = iter(())

    def __iter__(self) -> "Place":
        return self

    def __next__(self) -> Any:
        return next(self.batches)

    def move(self, iteration: int) -> None:
        """Go to an iteration; skipping the places before it is no part of what is measured."""
        self.loader.start_at(iteration)
        self.batches = iter(self.loader)
        next(self.batches)


class Side:
    """A variant with its model, of random weights, and its loader."""

    def __init__(self, variant: Variant) -> None:
        cfg = load_config(variant.config, [*STUDY.overrides_of(variant, 1), "+dataloader.train.seed=1"])
        cfg.train.device = "cpu"
        settle(cfg)
        plan = plan_run(cfg)
        torch.manual_seed(0)
        self.learner = build_learner(cfg, plan)
        loader = instantiate(cfg.dataloader.train)
        self.max_iter = plan.length.max_iter
        loader.plan(self.max_iter)
        self.place = Place(loader)
        self.trainer = Trainer(
            model=self.learner.model,
            data_loader=self.place,
            optimizer=self.learner.optimizer,
            precision=plan.precision,
            clip_max_norm=cfg.train.clip_grad.max_norm,
        )
        self.trainer.iter = 0
        self.images = next(iter(instantiate(cfg.dataloader.test)))
        self.parameters = sum(p.numel() for p in self.learner.model.parameters())

    def move(self, share: float) -> None:
        """Go to where a share of training is over."""
        tell_progress(self.learner.model, share)
        self.place.move(int(share * self.max_iter))

    def step(self) -> None:
        """Make a step."""
        with EventStorage() as self.trainer.storage:
            self.trainer.run_step()
        if self.learner.ema is not None:
            self.learner.ema.update()

    def evaluate(self) -> None:
        """Predict a batch."""
        with torch.inference_mode():
            self.learner.model(self.images)

    def peak(self) -> float:
        """Return the peak memory of a step in MiB."""
        found = []
        for share in MEMORY_AT:
            self.move(share)
            with EventStorage() as self.trainer.storage:
                self.trainer.optimizer.zero_grad(set_to_none=True)
                found.append(peak_of_step(self.trainer, "cpu"))
        return max(found)


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Return seconds of the clock and of the process."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(sides: dict[str, Side], steps: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each variant."""
    training: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    evaluation: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    places = [*WARM_UP, *((number + 0.5) / steps for number in range(steps))]
    for number, share in enumerate(places, start=-len(WARM_UP)):
        for name, side in sides.items():
            side.learner.model.train()
            side.move(share)
            row = timed(side.step)
            if number >= 0:
                training[name].append(row)
    for number in range(-1, max(3, steps // 2)):
        for name, side in sides.items():
            side.learner.model.eval()
            row = timed(side.evaluate)
            if number >= 0:
                evaluation[name].append(row)
    found: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        side.learner.model.train()
        found[name] = {
            "step_s": statistics.median(wall for wall, _ in training[name]),
            "step_cpu_s": statistics.median(cpu for _, cpu in training[name]),
            "step_ratio": _mean_ratio(training[name], training[BASE], 0),
            "step_cpu_ratio": _mean_ratio(training[name], training[BASE], 1),
            "peak_mib": side.peak(),
            "evaluation_cpu_s": statistics.median(cpu for _, cpu in evaluation[name]),
            "evaluation_cpu_ratio": _mean_ratio(evaluation[name], evaluation[BASE], 1),
            "parameters": side.parameters,
        }
    return found


def _mean_ratio(rows: list[tuple[float, float]], base: list[tuple[float, float]], column: int) -> float:
    return statistics.mean(row[column] / other[column] for row, other in zip(rows, base, strict=True))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a Markdown table; behind each, its ratio to "k 3"."""
    base = found[BASE]
    lines = [
        "| variant | step, ms | processor, ms | peak memory, MiB | evaluation, ms | parameters in training |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [
            f"{1000 * row['step_s']:.0f} ({row['step_ratio']:.2f})",
            f"{1000 * row['step_cpu_s']:.0f} ({row['step_cpu_ratio']:.2f})",
            f"{row['peak_mib']:.0f} ({row['peak_mib'] / base['peak_mib']:.2f})",
            f"{1000 * row['evaluation_cpu_s']:.0f} ({row['evaluation_cpu_ratio']:.2f})",
            f"{row['parameters']:,} ({row['parameters'] / base['parameters']:.2f})",
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to measure beside k 3")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    ideas = [v for v in STUDY.variants if v.name.startswith(f"{BASE}, ") and not any(x in v.name for x in LEFT_OUT)]
    chosen = [v for v in ideas if not args.only or v.name in args.only]
    sides = {v.name: Side(v) for v in [*(v for v in STUDY.variants if v.name == BASE), *chosen]}
    found = measure(sides, args.steps)
    print(table(found))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
