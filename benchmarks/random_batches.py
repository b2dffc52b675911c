"""Losses and gradients of random batches in every registered detector, made small: all of them are finite.

    python benchmarks/random_batches.py [--batches 2000] [--first 0] [--json FILE]

Batch number n is drawn with seed n: 1 or 2 images of 32 to 1333 pixels a side, 0 to 300 objects each, among them boxes
that are points, lines, the whole image, or equal; in every second batch the class and box layers put out up to 10,000
and 30 times as much as they do; every second pair of batches runs in bfloat16. Batches take turns through the distinct
small models of the model zoo's configs, which cover every registered meta-architecture. A line per fault names the
seed. The last line counts.
"""

import argparse
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from align_detr import model_zoo
from align_detr.modeling.meta_arch import RCNN
from support.inputs import box_masks
from support.shrink import as_json, config, shrink

SIDES = (32, 1333)
MOST_OBJECTS = 300
LARGEST_GRADIENT = 1e15  # beyond what any of these batches gives: memory that nobody has written
LEAST_SIDE_OF_RCNN = 1.0  # pixels: an R-CNN refuses boxes without sides
CLASS_LAYER = re.compile(r"(class_embed|objectness_logits|cls_score|classifier\.linear)(\.\d+)?$")
BOX_LAYER = re.compile(r"(bbox_embed|anchor_deltas|bbox_pred|boxes\.mlp)(\.\d+)?$")


def distinct_models() -> dict[str, DictConfig]:
    """Return the small models of the model zoo that differ, by the name of the first config that has them."""
    models: dict[str, DictConfig] = {}
    known = set()
    for name in model_zoo.names():
        small = shrink(config(name).model)
        if (text := as_json(small)) not in known:
            known.add(text)
            models[name] = small
    return models


def registered() -> set[str]:
    """Return the names of the meta-architectures of this library."""
    return {name for name, kind in META_ARCH_REGISTRY if kind.__module__.startswith("align_detr.")}


def draw_batch(seed: int, num_classes: int, least_side: float) -> list[dict[str, Any]]:
    """Return the batch of a seed in the mapper's form; boxes have sides of `least_side` pixels or more."""
    random = torch.Generator().manual_seed(seed)
    return [_draw_image(random, num_classes, least_side) for _ in range(_whole(random, 1, 2))]


def _draw_image(random: torch.Generator, num_classes: int, least_side: float) -> dict[str, Any]:
    low, high = SIDES
    largest = high if _whole(random, 0, 7) == 0 else 128  # large images take nearly all the time
    height, width = _whole(random, low, largest), _whole(random, low, largest)
    count = (0, 1, _whole(random, 2, 20), _whole(random, 21, MOST_OBJECTS), MOST_OBJECTS)[_whole(random, 0, 4)]
    size = torch.tensor([width, height], dtype=torch.float32)
    boxes = torch.rand(count, 2, 2, generator=random).sort(dim=1).values * size
    kind = torch.randint(8, (count,), generator=random)
    boxes[kind == 0, 1] = boxes[kind == 0, 0]  # a point
    boxes[kind == 1, 1, 0] = boxes[kind == 1, 0, 0]  # a vertical line
    boxes[kind == 2] = torch.stack([torch.zeros(2), size])  # the whole image
    if bool((kind == 3).any()):
        boxes[kind == 3] = boxes[kind == 3][:1].clone()  # all equal
    if least_side:
        boxes[:, 0] = boxes[:, 0].clamp(min=0).minimum(size - least_side)
        boxes[:, 1] = boxes[:, 1].maximum(boxes[:, 0] + least_side)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes.flatten(1))
    instances.gt_classes = torch.randint(num_classes, (count,), generator=random)
    level = _whole(random, 0, 3)  # a black, a white and otherwise a noise image
    noise = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=random)
    image = noise if level > 1 else torch.full_like(noise, 255 * level)
    return {"image": image, "height": height, "width": width, "instances": instances, "file_name": f"{count} objects"}


def _whole(random: torch.Generator, low: int, high: int) -> int:
    """Return a random number from `low` to `high`."""
    return int(torch.randint(low, high + 1, (), generator=random))


@contextmanager
def extreme(model: nn.Module, seed: int) -> Iterator[None]:
    """Multiply what the class and the box layers of `model` put out; in batches of an even seed, by 1."""
    random = torch.Generator().manual_seed(seed)
    classes = 10 ** (4 * float(torch.rand((), generator=random)))
    boxes = 30 * float(torch.rand((), generator=random))
    factors = {CLASS_LAYER: classes, BOX_LAYER: boxes} if seed % 2 else {}
    handles = [
        module.register_forward_hook(_scaled_by(factor))
        for name, module in model.named_modules()
        for pattern, factor in factors.items()
        if pattern.search(name) and not isinstance(module, nn.ModuleList)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scaled_by(factor: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def scale(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return output * factor

    return scale


def fault_of(model: nn.Module, seed: int) -> str:
    """Return what is wrong with the losses and gradients of the batch of a seed, or "" if all are finite."""
    model.zero_grad(set_to_none=True)
    batch = draw_batch(seed, int(model.num_classes), LEAST_SIDE_OF_RCNN if isinstance(model, RCNN) else 0.0)
    for image in batch if hasattr(model, "masks") else ():
        image["instances"].gt_masks = box_masks(image["instances"])
    torch.manual_seed(seed)
    try:
        with extreme(model, seed), EventStorage(seed), torch.autocast("cpu", torch.bfloat16, enabled=seed % 4 > 1):
            losses = model(batch)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    except Exception as error:  # whatever it is, the batch of this seed shows it
        return f"{type(error).__name__}: {error}"
    bad = [name for name, loss in losses.items() if not bool(loss.isfinite())]
    gradients = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    spoiled = [name for name, grad in gradients.items() if not bool((grad.abs() < LARGEST_GRADIENT).all())]
    return f"losses {bad}, gradients {spoiled[:5]}" if bad or spoiled else ""


def run(nodes: dict[str, DictConfig], first: int, batches: int) -> list[dict[str, Any]]:
    """Run the batches in small models by the names of their configs; return a row per fault.

    Raise RuntimeError if none of them has one of the registered meta-architectures.
    """
    torch.manual_seed(0)
    models = {name: instantiate(node).train() for name, node in nodes.items()}
    if missing := registered() - {type(model).__name__ for model in models.values()}:
        raise RuntimeError(f"No config of the model zoo has {', '.join(sorted(missing))}.")
    names, faults = list(models), []
    for seed in range(first, first + batches):
        name = names[seed // 4 % len(names)]  # four in a row: plain and extreme, in both precisions
        if fault := fault_of(models[name], seed):
            faults.append({"seed": seed, "config": name, "fault": fault})
            print(f"seed {seed}: {name}: {fault}", flush=True)
        if (seed - first + 1) % 200 == 0:
            print(f"{seed - first + 1} batches", file=sys.stderr, flush=True)
    print(f"{len(names)} models of {len(registered())} registered meta-architectures, seeds {first} to {seed}.")
    return faults


def main() -> int:
    """Run the batches of the command line and count; the exit status is 1 if one of them is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first batch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write seeds, time and faults")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("align_detr").setLevel(logging.ERROR)
    start = time.perf_counter()
    faults = run(distinct_models(), args.first, args.batches)
    seconds = round(time.perf_counter() - start, 1)
    if args.json:
        row = {"first_seed": args.first, "batches": args.batches, "seconds": seconds, "faults": faults}
        args.json.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(f"{seconds} s.")
    print(f"random_batches: {args.batches - len(faults)} of {args.batches} finite")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
