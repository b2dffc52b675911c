"""Time of prediction: a detector as it is, optimized for inference, and the same network of transformers.

    python benchmarks/inference.py [detector ...] [--batch 1 8] [--threads 2] [--repeats 5] [--sizes 50] [--short]
        [--json FILE]

R50, noise images of 480x640, random weights, float32. The three sides take turns in one process, with the same threads;
a cell is the median of the repeats, by the clock or, with `--processor`, of the process's own seconds, which other
programs disturb least with `--threads 1`; JSON has every repeat. Ours starts at pixels and ends with detections, theirs
starts at normalised pixels and ends with logits and boxes. DINO has no counterpart there: it stands beside their
two-stage Deformable-DETR, and the table has the multiply-adds of convolutions and linear layers of both. Without
transformers, ours alone.

The last column is the largest difference between the optimized copy in float32 and the model as it is, of the last
layer's probabilities and of its normalised boxes. Random proposals score alike, so that rounding decides which of two
is selected: both decode those of the model as it is, and the share that the copy selects as well is given. `--sizes 50`
predicts images of 50 sizes, each twice: the optimized copy's seconds per image when a size is new and when it is kept.
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
import torch._dynamo
from detectron2.config import instantiate
from torch import Tensor, nn

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


def example(batch: int) -> list[dict[str, Tensor]]:
    """Return a batch of noise images."""
    return [{"image": image} for image in torch.randint(256, (batch, 3, HEIGHT, WIDTH), dtype=torch.uint8)]


def difference(model: nn.Module, fast: nn.Module, inputs: list[dict[str, Tensor]]) -> tuple[float, float | None]:
    """Return the largest difference between two models' probabilities and normalised boxes, from the same proposals,
    and the share of the first model's proposals that the second selects as well.
    """
    images = [model.normalize(x["image"]) for x in inputs]
    sets, proposals, alike = [], None, None
    with torch.inference_mode():
        for side in (model, fast.model):
            memory = side.encoder(side.extract_features(images))
            if side.proposals is not None:
                selected = side.proposals(memory)
                if proposals is None:
                    proposals = selected
                else:
                    alike = torch.cdist(proposals.reference, selected.reference, p=torch.inf).amin(-1).lt(1e-4)
            sets.append(side.decoder(side.queries(memory, proposals), memory, side.head)["main"])
    a, b = (x.logits[-1].softmax(-1) if x.softmax else x.logits[-1].sigmoid() for x in sets)
    largest = max(float((a - b).abs().max()), float((sets[0].boxes[-1] - sets[1].boxes[-1]).abs().max()))
    return largest, None if alike is None else float(alike.float().mean())


def of_sizes(fast: nn.Module, count: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds per image of `count` sizes around 480x640, each when it is new and when it is kept."""
    new, kept = 0.0, 0.0
    for i in range(count):
        size = (3, HEIGHT - 100 + 4 * i, WIDTH + 100 - 4 * i)
        inputs = [{"image": torch.randint(256, size, dtype=torch.uint8)}]
        start = clock()
        fast(inputs)
        middle = clock()
        fast(inputs)
        new, kept = new + middle - start, kept + clock() - middle
    return new / count, kept / count


def sides(name: str, batch: int, precision: list[str]) -> dict[str, tuple[nn.Module, Callable[[], Any]]]:
    """Return the models of a row and what runs each of them."""
    torch.manual_seed(0)
    model = instantiate(model_zoo.get_config(CONFIGS[name]).model).eval()
    inputs = example(batch)
    runs = {"ours": (model, lambda: model(inputs))}
    for kind in dict.fromkeys(["float32", *precision]):
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
    parser.add_argument("--sizes", type=int, default=0, help="number of other sizes, each predicted twice")
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
                apart, alike = difference(runs["ours"][0], runs["optimized float32"][0], example(batch))
                work = {side: multiply_adds(*runs[side]) for side in ("ours", "transformers") if side in runs}
            median = {side: statistics.median(x) for side, x in times.items()}
            peer = median.get("transformers")
            cells = [
                f"{side} {value:.3f}" + (f" ({peer / value:.2f}x)" if peer else "") for side, value in median.items()
            ]
            counted = ", ".join(f"{side} {value:.0f}" for side, value in work.items())
            equal = f"{apart:.0e}" + ("" if alike is None else f", {alike:.1%} of proposals alike")
            print(f"| {name} | {batch} | {' | '.join(cells)} | {counted} G | {equal} |", flush=True)
            rows.append(
                dict(detector=name, batch=batch, seconds=times, multiply_adds=work, difference=apart, alike=alike)
            )
            if args.sizes and batch == 1:
                new, kept = of_sizes(runs["optimized float32"][0], args.sizes, clock)
                graphs = torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)
                print(f"| {name}, {args.sizes} sizes | new {new:.3f}, kept {kept:.3f} | {graphs} graphs compiled |")
                rows.append(dict(detector=name, sizes=args.sizes, new=new, kept=kept, graphs=graphs))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
