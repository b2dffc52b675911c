"""What recording the sparsity of cross-attention costs (`train.attention_sparsity`), as a share of a training step.

    python benchmarks/attention_sparsity.py [config ...] [--steps 60] [--device cuda]

Trains a detector on one batch of noise images, first for blocks of 100 steps, the period that the documents name,
alternately with the hook and without it, twice each, from the same weights and seeds; then for --steps steps of which
every second is recorded. All losses of all blocks must be equal to the last bit. Prints two ratios: of the seconds of
the blocks with the hook to those without, of each step the faster of two; and of the median recorded step to the median
of the others, whose excess divided by 100 says what a period costs and depends less on the machine's other work. Times
are CPU seconds of the process, in one thread; on CUDA wall-clock seconds between synchronisations.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from detectron2.config import instantiate
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from seeded_steps import random_image
from torch import nn

from align_detr import model_zoo
from align_detr.engine.attention_sparsity import PERIOD, attention_sparsity

CONFIGS = ("quickstart/digits_detr.py", "quickstart/digits.py")
SIDE, IMAGES, OBJECTS, WARM_UP, BLOCKS = 128, 4, 5, 5, 2


def now(device: str) -> float:
    """Return the seconds that the process has used on a CPU, or those of the clock once CUDA has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def block(
    model: nn.Module, batch: Sequence[dict[str, Any]], *, steps: int, period: int, device: str
) -> tuple[list[float], list[float]]:
    """Train a copy of the model, recorded every `period` steps (0: never); return the seconds and the total loss of
    each step.
    """
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    hook = attention_sparsity(model, period)
    seconds, losses = [], []
    torch.manual_seed(1)
    with EventStorage() as storage:
        for iteration in range(steps):
            start = now(device)
            trainer = cast(TrainerBase, SimpleNamespace(iter=iteration, storage=storage))
            if hook is not None:
                hook.trainer = trainer
                hook.before_step()
            optimizer.zero_grad()
            total = torch.stack(list(model(batch).values())).sum()
            total.backward()
            optimizer.step()
            losses.append(total.item())
            if hook is not None:
                hook.after_step()
            seconds.append(now(device) - start)
            storage.step()
    return seconds, losses


def measure(config: str, steps: int, device: str) -> bool:
    """Print the ratios of a config; return whether all losses are equal."""
    torch.manual_seed(0)
    model = instantiate(model_zoo.get_config(config).model).to(device).train()
    batch = [random_image(SIDE, SIDE, OBJECTS, model.num_classes) for _ in range(IMAGES)]
    block(model, batch, steps=WARM_UP, period=0, device=device)
    seconds: dict[int, list[list[float]]] = {PERIOD: [], 0: []}
    losses = []
    for period in (PERIOD, 0) * BLOCKS:
        of_block, found = block(model, batch, steps=PERIOD, period=period, device=device)
        seconds[period].append(of_block)
        losses.append(found)
    on, off = (sum(map(min, zip(*seconds[period], strict=True))) for period in (PERIOD, 0))
    alternating, found = block(model, batch, steps=steps, period=2, device=device)
    step = statistics.median(alternating[1::2]) / statistics.median(alternating[::2])
    equal = all(each == losses[0][: len(each)] for each in [*losses, found[:PERIOD]])
    print(
        f"{config}: {PERIOD} steps with / without {on / off:.4f}; a recorded step / another {step:.3f}, which is "
        f"{100 * (step - 1) / PERIOD:+.3f} % of a period; losses {'equal' if equal else 'DIFFER'}",
        flush=True,
    )
    return equal


def main() -> None:
    """Exit with 1 if a loss differs."""
    parser = argparse.ArgumentParser(description="What recording the sparsity of cross-attention costs.")
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="config")
    parser.add_argument("--steps", type=int, default=60, help="steps of which every second is recorded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    equal = [measure(config, args.steps, args.device) for config in args.configs]
    sys.exit(not all(equal))


if __name__ == "__main__":
    main()
