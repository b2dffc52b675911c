"""How a training step's time and memory grow with queries, objects, image area and batch.

    python benchmarks/scaling.py [--device cpu] [--repeats 3] [--short] [--json FILE] [--figure FILE]

Align-DINO-R50 of full width with two encoder and two decoder layers, float32, on noise images: 256 x 256 pixels, batch
2, 10 objects per image and 300 queries, of which one number is changed at a time. The backbone is the small ResNet of
the digits' detector (random weights), so that the transformer's part is not hidden behind convolutions. The time is
that of forward and backward pass and optimizer, the median over the repeats, in which the settings take turns; memory
is the most that a step allocates beside weights and images, as PyTorch counts it. The last line has the growth of the
time from the smallest to the largest of each number.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr import model_zoo

CONFIG = "align_detr/align_dino_r50_4scale_12ep.py"
BACKBONE = "quickstart/digits.py"
LAYERS = 2


@dataclass(frozen=True)
class Setting:
    """The numbers of a step; `side` in pixels, of square images."""

    queries: int = 300
    objects: int = 10
    side: int = 256
    batch: int = 2


AXES: dict[str, Sequence[int]] = {
    "queries": (100, 300, 900, 1800),
    "objects": (1, 10, 100, 300),
    "side": (128, 256, 384, 512),
    "batch": (1, 2, 4, 8, 16),
}
SHORT_AXES: dict[str, Sequence[int]] = {name: (values[0], values[2]) for name, values in AXES.items()}


def build(queries: int, device: str) -> nn.Module:
    """Return the detector with a number of queries."""
    torch.manual_seed(0)
    node, small = model_zoo.get_config(CONFIG).model.copy(), model_zoo.get_config(BACKBONE).model
    node.backbone = small.backbone
    node.neck.in_channels = small.neck.in_channels
    node.encoder.num_layers = node.decoder.num_layers = node.head.num_layers = LAYERS
    node.criterion.matcher.copies.main = list(node.criterion.matcher.copies.main)[-LAYERS:]
    set_everywhere(node, "num_queries", queries)
    model: nn.Module = instantiate(node).to(device).train()
    return model


def set_everywhere(node: Any, key: str, value: int) -> None:
    """Set every number of this name in a config."""
    for name in list(node.keys()):
        if name == key:
            node[name] = value
        elif hasattr(node[name], "keys"):
            set_everywhere(node[name], key, value)


def draw_images(setting: Setting, num_classes: int) -> list[dict[str, Any]]:
    """Return noise images with random boxes, in the mapper's form."""
    random, side = torch.Generator().manual_seed(0), setting.side
    images = []
    for _ in range(setting.batch):
        corners = torch.rand(setting.objects, 2, 2, generator=random).sort(dim=1).values * side
        classes = torch.randint(num_classes, (setting.objects,), generator=random)
        instances = Instances((side, side), gt_boxes=Boxes(corners.flatten(1)), gt_classes=classes)
        pixels = torch.randint(256, (3, side, side), dtype=torch.uint8, generator=random)
        images.append({"image": pixels, "height": side, "width": side, "instances": instances})
    return images


def stepper(model: nn.Module, setting: Setting) -> Callable[[], None]:
    """Return a function that makes one training step."""
    images = draw_images(setting, int(model.num_classes))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with EventStorage(0):
            losses = model(images)
        torch.stack([*losses.values()]).sum().backward()
        optimizer.step()

    return step


def seconds_of(step: Callable[[], None], device: str) -> float:
    """Return the time of a step."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def mebibytes_of(step: Callable[[], None], device: str) -> float:
    """Return the most that a step allocates at a time beside what is there before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    now = most = 0
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 2**20


def measure(axes: dict[str, Sequence[int]], repeats: int, device: str) -> list[dict[str, Any]]:
    """Return a row per number and value."""
    settings = {(axis, value): replace(Setting(), **{axis: value}) for axis, values in axes.items() for value in values}
    models = {queries: build(queries, device) for queries in {each.queries for each in settings.values()}}
    steps = {each: stepper(models[each.queries], each) for each in set(settings.values())}
    memory = {each: mebibytes_of(step, device) for each, step in steps.items()}  # and the first step, which is slower
    times: dict[Setting, list[float]] = {each: [] for each in steps}
    for _ in range(repeats):
        for each, step in steps.items():
            times[each].append(seconds_of(step, device))
    return [
        {
            "axis": axis,
            "value": value,
            "seconds": median(times[each]),
            "least": min(times[each]),
            "most": max(times[each]),
            "mebibytes": memory[each],
        }
        for (axis, value), each in settings.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = ["| | | step, ms (range) | memory, MiB |", "|---|---|---|---|"]
    for row in rows:
        middle, low, high = (f"{1000 * row[name]:.0f}" for name in ("seconds", "least", "most"))
        lines.append(f"| {row['axis']} | {row['value']} | {middle} ({low} to {high}) | {row['mebibytes']:.0f} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory over each number, both axes logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    axes_of = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = pyplot.subplots(1, len(axes_of), figsize=(2.6 * len(axes_of), 2.6), layout="constrained")
    for panel, axis in zip(panels, axes_of, strict=True):
        of_axis = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in of_axis]
        panel.loglog(values, [1000 * row["seconds"] for row in of_axis], "o-", label="ms per step")
        panel.loglog(values, [row["mebibytes"] for row in of_axis], "s--", label="MiB")
        panel.set_xlabel({"side": "side of the image, pixels"}.get(axis, axis))
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=80)


def growth(rows: list[dict[str, Any]]) -> str:
    """Return how many times as long a step takes with the largest value of each number as with the smallest."""
    parts = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        of_axis = [row for row in rows if row["axis"] == axis]
        ratio = of_axis[-1]["seconds"] / of_axis[0]["seconds"]
        parts.append(f"{axis} {of_axis[0]['value']} to {of_axis[-1]['value']}: {ratio:.2f}")
    return ", ".join(parts)


def main() -> None:
    """Measure, print the table, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="two values of each number, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="a PNG of time and memory over each number")
    args = parser.parse_args()
    logging.getLogger("align_detr").setLevel(logging.ERROR)
    rows = measure(SHORT_AXES if args.short else AXES, 1 if args.short else args.repeats, args.device)
    print(f"{args.device}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}\n\n{table(rows)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if args.figure:
        draw(rows, args.figure)
    print(f"scaling: {growth(rows)}")


if __name__ == "__main__":
    main()
