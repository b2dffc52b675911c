"""A profile of training steps: a trace for a viewer, and one page that says where the time goes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.hooks import RemovableHandle

from align_detr.checkpoint.files import disk_problems

logger = logging.getLogger(__name__)

PAGE, TRACE = "profile.md", "profile_trace.json.gz"
WARM_UP = 3  # steps before the profile: the first ones compile, allocate and start workers
OPERATIONS = 15  # rows of the second table
PREFIX = "step: "
STEP = "whole step"

# parts of a step, in the page's order, and what they are; parts of a model are inserted behind the forward pass
PARTS = {
    "data": "waiting for the next batch of the loader",
    "forward": "the model and its losses",
    "backward": "gradients",
    "clip": "norm of the gradient, clipping",
    "metrics": "losses and norm copied to the host, checks",
    "optimizer": "the weights' change",
}
MEANINGS = {
    "convolution": "convolutions: backbone and neck",
    "conv": "convolutions: backbone and neck",
    "mm": "matrix products: linear layers, attention",
    "linear": "matrix products: linear layers, attention",
    "attention": "attention",
    "deformable": "sampling of deformable attention",
    "softmax": "softmax of attention",
    "norm": "normalisation",
    "bernoulli": "random numbers of dropout",
    "random": "random numbers",
    "adam": "the optimizer",
    "sgd": "the optimizer",
    "copy": "copies: types, layouts, devices",
    "threshold": "gradient of ReLU",
    "clamp": "ReLU, limits",
    "mul": "products, element by element",
    "add": "sums, element by element",
    "DataLoader": "waiting for the loader",
}


def part_of_step(name: str) -> record_function:
    """Return a context whose time the page lists as the part `name` of a step."""
    return record_function(PREFIX + name)


class StepProfile(HookBase):
    """Profiles `steps` steps after WARM_UP others and writes PAGE and TRACE into `folder`, on the main process."""

    def __init__(self, *, folder: Path, steps: int, model: nn.Module) -> None:
        self.folder, self.steps, self.model = folder, steps, model
        self._profiler: profile | None = None
        self._handles: list[RemovableHandle] = []
        self._whole: record_function | None = None
        self._open: dict[str, list[record_function]] = {}

    def before_step(self) -> None:
        """Begin the profile, or its next step."""
        if self.trainer.iter == self.trainer.start_iter + WARM_UP:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._profiler = profile(activities=activities)
            self._profiler.__enter__()
            for name, child in self.model.named_children():
                self._handles.append(child.register_forward_pre_hook(self._enter(name)))
                self._handles.append(child.register_forward_hook(self._leave(name)))
        if self._profiler is not None:
            self._whole = part_of_step(STEP)
            self._whole.__enter__()

    def after_step(self) -> None:
        """End the step; after the last, write what was found."""
        if self._profiler is None or self._whole is None:
            return
        self._whole.__exit__(None, None, None)
        if self.trainer.iter + 1 >= self.trainer.start_iter + WARM_UP + self.steps:
            self._finish(self.steps)

    def after_train(self) -> None:
        """Write the page of a training that ended earlier, or say that there is none."""
        if self._profiler is not None:
            self._finish(self.trainer.iter - self.trainer.start_iter - WARM_UP)
        elif not (self.folder / PAGE).exists():
            logger.warning("Training ended before step %d: there is no profile.", WARM_UP + 1)

    def _enter(self, name: str) -> Any:
        def enter(module: nn.Module, inputs: Any) -> None:
            context = part_of_step(f"forward, {name}")
            context.__enter__()
            self._open.setdefault(name, []).append(context)

        return enter

    def _leave(self, name: str) -> Any:
        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._open[name].pop().__exit__(None, None, None)

        return leave

    def _finish(self, steps: int) -> None:
        for handle in self._handles:
            handle.remove()
        profiler, self._profiler = self._profiler, None
        assert profiler is not None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        profiler.__exit__(None, None, None)
        if steps < 1:
            return
        parts, operations = read_profile(profiler, steps)
        with disk_problems(self.folder / TRACE):
            profiler.export_chrome_trace(str(self.folder / TRACE))
            (self.folder / PAGE).write_text(page(parts, operations, steps), encoding="utf-8")
        logger.info("Where the time of a step goes is in %s, its trace in %s.", self.folder / PAGE, TRACE)


@dataclass(frozen=True)
class Operation:
    """An operation with its own time and calls per step."""

    name: str
    milliseconds: float
    calls: float


def read_profile(profiler: profile, steps: int) -> tuple[dict[str, float], list[Operation]]:
    """Return milliseconds per step by part, on the host's clock, and the operations, the longest first: their own time
    on the device, if one has computed, else on the host.
    """
    events = profiler.key_averages()
    on_device = any(event.self_device_time_total > 0 for event in events)
    parts = {
        event.key.removeprefix(PREFIX): event.cpu_time_total / 1000 / steps
        for event in events
        if event.key.startswith(PREFIX) and event.cpu_time_total > 0
    }
    operations = [
        Operation(
            event.key,
            (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1000 / steps,
            event.count / steps,
        )
        for event in events
        if not event.key.startswith(PREFIX)
    ]
    return parts, sorted(operations, key=lambda operation: -operation.milliseconds)


def page(parts: Mapping[str, float], operations: Sequence[Operation], steps: int) -> str:
    """Return the page in Markdown: the parts of a step, the operations that take longest, and what to do."""
    whole = parts[STEP]
    listed = [(name, parts.get(name, 0.0), meaning) for name, meaning in PARTS.items()]
    rows = []
    for name, value, meaning in listed:
        rows.append(_row(name, value, whole, meaning))
        if name == "forward":
            inner = {key: v for key, v in parts.items() if key.startswith("forward, ")}
            rows += [_row(f"— {key.removeprefix('forward, ')}", v, whole, "part of it") for key, v in inner.items()]
    rows.append(_row("rest", whole - sum(value for _, value, _ in listed), whole, "hooks, the loop itself"))
    total = sum(operation.milliseconds for operation in operations) or 1.0
    of_operations = [
        f"| `{each.name}` | {each.milliseconds:.1f} | {100 * each.milliseconds / total:.0f} % | {each.calls:g} "
        f"| {_meaning(each.name)} |"
        for each in operations[:OPERATIONS]
    ]
    lines = [
        "# Where the time of a training step goes",
        f"A step took {whole:.1f} ms: the mean of {steps} steps, with the profile's own cost, on {_machine()}.",
        "## By part",
        "Time on the host. A GPU computes later than the host asks, so there the time is where the host waits.",
        "\n".join(["| part | ms per step | share | what |", "|---|---|---|---|", *rows]),
        "## By operation",
        f"The {len(of_operations)} operations with the most time of their own, without those that they call. With a "
        "GPU it is the GPU's time. Shares are of all operations.",
        "\n".join(
            ["| operation | ms per step | share | calls per step | what |", "|---|---|---|---|---|", *of_operations]
        ),
        "## What to do",
        "\n".join(f"- {line}" for line in advice(parts)),
        f"Open `{TRACE}` in https://ui.perfetto.dev to see every call on a time line.",
    ]
    return "\n\n".join(lines) + "\n"


def advice(parts: Mapping[str, float]) -> list[str]:
    """Return a sentence per part that takes an unusual share of a step."""
    share = {name: value / parts[STEP] for name, value in parts.items()}
    lines = []
    if share.get("data", 0.0) > 0.1:
        lines.append("The step waits for data: raise dataloader.train.num_workers, or lower the image size.")
    if share.get("optimizer", 0.0) + share.get("clip", 0.0) > 0.15:
        lines.append(
            "Weights take long to change, which costs the same for any batch: raise the batch, or freeze more."
        )
    if share.get("forward, backbone", 0.0) > 0.25:
        lines.append("The backbone takes long: train.freeze=[backbone] saves its backward pass, too.")
    if share.get("forward, criterion", 0.0) > 0.1:
        lines.append("Matching and losses take long: install numba for the matching (extra `numba`).")
    lines.append(
        "Mixed precision (train.amp.enabled=True) shortens all but the optimizer where the device computes in it."
    )
    return lines


def _row(name: str, value: float, whole: float, meaning: str) -> str:
    return f"| {name} | {value:.1f} | {100 * value / whole:.0f} % | {meaning} |"


def _meaning(operation: str) -> str:
    return next((text for key, text in MEANINGS.items() if key in operation), "")


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"a CPU with {torch.get_num_threads()} threads"
