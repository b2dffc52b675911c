"""Accumulation and activation checkpointing: difference of the gradients, peak memory and time of a step.

    python benchmarks/memory.py [--size 256] [--device cpu] [config ...]

Each config at full size, without dropout, on eight noise images with up to ten objects: the batch at once and in four
parts of two, with `train.checkpoint_activations` off and on. The difference is the norm of the difference of the
gradients over the norm of the gradient of the first row. Peak memory is the most that a step has allocated beside
weights and images: gradients and activations, as the allocator counts them. The time is that of the first of two steps,
without the counting of memory.
"""

import argparse
import time
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn

from align_detr import model_zoo
from align_detr.engine.precision import Precision
from align_detr.engine.recomputation import checkpoint_activations
from align_detr.engine.trainer import Trainer

CONFIGS = ("detr/detr_r50_500ep.py", "deformable_detr/deformable_detr_r50_two_stage_50ep.py")
COUNTS = (3, 0, 7, 1, 2, 10, 5, 1)  # objects per image
CLASSES = 80


def random_images(size: int) -> list[dict[str, Any]]:
    """Return noise images (3, size, size) with random boxes, in the mapper's form."""
    torch.manual_seed(1)
    images = []
    for count in COUNTS:
        corners = torch.rand(count, 2, 2).sort(dim=1).values * size
        instances = Instances(
            (size, size), gt_boxes=Boxes(corners.flatten(1)), gt_classes=torch.randint(CLASSES, (count,))
        )
        pixels = torch.randint(256, (3, size, size), dtype=torch.uint8)
        images.append({"image": pixels, "height": size, "width": size, "instances": instances})
    return images


def without_dropout(node: DictConfig | ListConfig) -> None:
    """Set every dropout of a model's config to 0: parts of a batch draw other numbers than the whole."""
    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        if key == "dropout":
            node[key] = 0.0
        elif isinstance(node[key], (DictConfig, ListConfig)):
            without_dropout(node[key])


def build(config: str, device: str, checkpointing: bool) -> nn.Module:
    """Return the model of a config, the same one each time."""
    node = model_zoo.get_config(config).model.copy()
    without_dropout(node)
    torch.manual_seed(0)
    model: nn.Module = instantiate(node).to(device).train()
    checkpoint_activations(model, checkpointing)
    return model


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Return copies of the gradients by name."""
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def peak_of_step(trainer: Trainer, device: str) -> float:
    """Run a step; return the largest sum of what it has allocated at a time, in MiB."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.run_step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.run_step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 2**20


def measure(config: str, size: int, device: str) -> None:
    """Print the rows of a config."""
    expected: dict[str, Tensor] = {}
    for accumulate in (1, 4):
        for checkpointing in (False, True):
            model = build(config, device, checkpointing)
            trainer = Trainer(
                model=model,
                data_loader=[random_images(size)] * 2,
                optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0),
                precision=Precision(),
                clip_max_norm=0.0,
                accumulate=accumulate,
            )
            with EventStorage() as trainer.storage:
                start = time.perf_counter()
                trainer.run_step()
                seconds = time.perf_counter() - start
                found = gradients(trainer)
                trainer.optimizer.zero_grad(set_to_none=True)
                peak = peak_of_step(trainer, device)
            expected = expected or found
            norm = torch.stack([g.norm() for g in expected.values()]).norm()
            difference = torch.stack([(expected[name] - found[name]).norm() for name in expected]).norm() / norm
            batch = "8" if accumulate == 1 else "4 x 2"
            on = "on" if checkpointing else "off"
            print(f"| `{config}` | {batch} | {on} | {difference:.1e} | {peak:.0f} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("| config | batch | checkpointing | difference | peak, MiB | step, s |\n|---|---|---|---|---|---|")
    for config in options.configs:
        measure(config, options.size, options.device)


if __name__ == "__main__":
    main()
