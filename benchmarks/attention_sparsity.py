"""What recording the sparsity of cross-attention costs (`train.attention_sparsity`), as a share of a training step.

    python benchmarks/attention_sparsity.py [config ...] [--blocks 4] [--device cuda]

Trains a detector on one batch of noise images for blocks of 100 steps, the period that the documents name, alternately
with the hook and without it, from the same weights and seeds, after a warm-up. All losses of all blocks must be equal
to the last bit. Of each step the fastest of all blocks counts. Prints two ratios, of times with the hook to times
without: of the whole block, and of its recorded step alone, whose excess divided by 100 says more about the period than
the first ratio on a busy machine. Times are CPU seconds of the process, in one thread; on CUDA wall-clock seconds
between synchronisations.
"""

import argparse
import copy
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
from align_detr.engine.attention_sparsity import PERIOD, AttentionSparsity

CONFIGS = ("quickstart/digits_detr.py", "quickstart/digits.py")
SIDE, IMAGES, OBJECTS, WARM_UP = 128, 4, 5, 5


def now(device: str) -> float:
    """Return the seconds that the process has used on a CPU, or those of the clock once CUDA has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def block(
    model: nn.Module, batch: Sequence[dict[str, Any]], *, steps: int, recorded: bool, device: str
) -> tuple[list[float], list[float]]:
    """Train a copy of the model; return the seconds and the total loss of each step."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    hook = AttentionSparsity(model) if recorded else None
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


def measure(config: str, blocks: int, device: str) -> bool:
    """Print the ratios of a config; return whether all losses are equal."""
    torch.manual_seed(0)
    model = instantiate(model_zoo.get_config(config).model).to(device).train()
    batch = [random_image(SIDE, SIDE, OBJECTS, model.num_classes) for _ in range(IMAGES)]
    block(model, batch, steps=WARM_UP, recorded=False, device=device)
    seconds: dict[bool, list[list[float]]] = {True: [], False: []}
    losses = []
    for number in range(2 * blocks):
        recorded = number % 2 == 0
        of_block, found = block(model, batch, steps=PERIOD, recorded=recorded, device=device)
        seconds[recorded].append(of_block)
        losses.append(found)
    equal = all(found == losses[0] for found in losses)
    on, off = ([min(times) for times in zip(*seconds[kind], strict=True)] for kind in (True, False))
    whole, step = sum(on) / sum(off), on[-1] / off[-1]
    print(
        f"{config}: {PERIOD} steps with / without {whole:.4f}; the recorded step with / without {step:.3f}, which is "
        f"{100 * (step - 1) / PERIOD:+.3f} % of a period; losses {'equal' if equal else 'DIFFER'}",
        flush=True,
    )
    return equal


def main() -> None:
    """Exit with 1 if a loss differs."""
    parser = argparse.ArgumentParser(description="What recording the sparsity of cross-attention costs.")
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="config")
    parser.add_argument("--blocks", type=int, default=4, help="blocks of each kind")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    equal = [measure(config, args.blocks, args.device) for config in args.configs]
    sys.exit(not all(equal))


if __name__ == "__main__":
    main()
