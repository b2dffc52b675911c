"""Time of prediction: a detector as it is, optimized for inference, and the same network of transformers.

    python benchmarks/inference.py [detector ...] [--batch 1 8] [--threads 2] [--repeats 5] [--short] [--json FILE]

R50, noise images of 480x640, random weights, float32. The three sides take turns in one process, with the same threads;
a cell is the median of the repeats, by the clock or, with `--processor`, of the process's own seconds, which other
programs disturb least with `--threads 1`; JSON has every repeat. Ours starts at pixels and ends with detections, theirs
starts at normalised pixels and ends with logits and boxes. DINO has no counterpart there: it stands beside their
two-stage Deformable-DETR, and the table has the multiply-adds of convolutions and linear layers of both. Without
transformers, ours alone.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from torch import nn

from align_detr import model_zoo, optimize_for_inference

# Name: our config.
CONFIGS = {
    "DETR": "detr/detr_r50_500ep.py",
    "Conditional-DETR": "conditional_detr/conditional_detr_r50_50ep.py",
    "DAB-DETR": "dab_detr/dab_detr_r50_50ep.py",
    "Deformable-DETR": "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "DINO": "dino/dino_r50_4scale_12ep.py",
}
HEIGHT, WIDTH = 480, 640


def theirs(name: str) -> nn.Module | None:
    """Return transformers' network with random weights, or None if it is not installed."""
    try:
        import transformers as hf
    except ModuleNotFoundError:
        return None
    kind = {"DETR": "Detr", "Conditional-DETR": "ConditionalDetr", "DAB-DETR": "DabDetr"}.get(name, "DeformableDetr")
    two_stage = kind == "DeformableDetr"
    backbone = hf.ResNetConfig(out_features=["stage2", "stage3", "stage4"] if two_stage else ["stage4"])
    options = dict(two_stage=True, with_box_refine=True, num_feature_levels=4) if two_stage else {}
    config = getattr(hf, f"{kind}Config")(backbone_config=backbone, num_labels=80, **options)
    return getattr(hf, f"{kind}ForObjectDetection")(config).eval()


def multiply_adds(model: nn.Module, run: Callable[[], Any]) -> float:
    """Return the multiply-adds of convolutions and linear layers in one call of `run`, in 10^9."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    run()
    for hook in hooks:
        hook.remove()
    return total / 1e9


def sides(name: str, batch: int, precision: list[str]) -> dict[str, tuple[nn.Module, Callable[[], Any]]]:
    """Return the models of a row and what runs each of them."""
    torch.manual_seed(0)
    model = instantiate(model_zoo.get_config(CONFIGS[name]).model).eval()
    images = torch.randint(256, (batch, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    inputs = [{"image": image} for image in images]
    runs = {"ours": (model, lambda: model(inputs))}
    for kind in precision:
        fast = optimize_for_inference(model, precision=kind)
        runs[f"optimized {kind}"] = (fast, lambda fast=fast: fast(inputs))
    if (other := theirs(name)) is not None:
        pixels, mask = torch.randn(batch, 3, HEIGHT, WIDTH), torch.ones(batch, HEIGHT, WIDTH, dtype=torch.long)
        runs["transformers"] = (other, lambda: other(pixel_values=pixels, pixel_mask=mask))
    return runs


def measure(
    runs: dict[str, tuple[nn.Module, Callable[[], Any]]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds of each side's repeats, which take turns."""
    times: dict[str, list[float]] = {side: [] for side in runs}
    for repeat in range(-1, repeats):  # the first warms up
        for side, (_, run) in runs.items():
            start = clock()
            run()
            if repeat >= 0:
                times[side].append(clock() - start)
    return times


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Time of prediction.")
    parser.add_argument("detectors", nargs="*", default=list(CONFIGS), help=", ".join(CONFIGS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--short", action="store_true", help="DETR and Deformable-DETR, one image, two repeats")
    parser.add_argument("--processor", action="store_true", help="the process's own seconds, not the clock's")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.short:
        args.detectors, args.batch, args.repeats = ["DETR", "Deformable-DETR"], [1], 2
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.processor else time.perf_counter
    if theirs("DETR") is None:
        print("transformers is not installed, so ours stands alone: pip install 'align_detr[peers]'")
    print(f"480x640, {args.threads} threads, PyTorch {torch.__version__}; seconds, and transformers / ours")
    rows = []
    for name in args.detectors:
        for batch in args.batch:
            with torch.no_grad(), contextlib.suppress(KeyboardInterrupt):
                runs = sides(name, batch, args.precision)
                times = measure(runs, args.repeats, clock)
                work = {side: multiply_adds(*runs[side]) for side in ("ours", "transformers") if side in runs}
            median = {side: statistics.median(x) for side, x in times.items()}
            peer = median.get("transformers")
            cells = [
                f"{side} {value:.3f}" + (f" ({peer / value:.2f}x)" if peer else "") for side, value in median.items()
            ]
            counted = ", ".join(f"{side} {value:.0f}" for side, value in work.items())
            print(f"| {name} | {batch} | {' | '.join(cells)} | {counted} G |", flush=True)
            rows.append(dict(detector=name, batch=batch, seconds=times, multiply_adds=work))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
