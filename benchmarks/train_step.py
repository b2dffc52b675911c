"""Time and memory of a training step: this library, an earlier build of it, and transformers, taking turns.

    python benchmarks/train_step.py [config ...] [--earlier FOLDER] [--device cpu] [--json FILE] [--short]

Each config at full size with random weights, two noise images of 480x640 with 10 objects each: losses, gradients,
clipping, and AdamW. transformers' detector has the same parts, the same trainable parameters and the same dropout, on
attention weights too (transformers leaves that out by default), and the same optimizer. `--earlier` names the folder of
another checkout, which is measured as well. Every side is a process of its own, and they take turns step by step, so
that other work of the machine meets all of them alike; a table gives medians, their ratios (above 1: this library is
faster), the spread of the ratios of single turns, and each process's peak memory. transformers is optional: `pip
install -e ".[peers]"`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONFIGS = (
    "detr/detr_r50_500ep.py",
    "conditional_detr/conditional_detr_r50_50ep.py",
    "dab_detr/dab_detr_r50_50ep.py",
    "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "align_detr/align_dino_r50_4scale_12ep.py",
)
HEIGHT, WIDTH, OBJECTS, IMAGES, DROPOUT = 480, 640, 10, 2, 0.1
OURS, EARLIER, PEER = "this build", "earlier build", "transformers"


class Side:
    """A process that makes a training step each time it is asked."""

    def __init__(self, name: str, config: str, folder: Path, args: argparse.Namespace) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), config, "--device", args.device]
        command += ["--threads", str(args.threads), "--serve", "peer" if name == PEER else "build"]
        command += ["--dropout-off"] * args.dropout_off + ["--bfloat16"] * args.bfloat16
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> dict[str, float]:
        """Return seconds of the clock and of the process, peak memory in MB, and the total of the losses."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("A process of the comparison has ended: see its error above.")
        row: dict[str, float] = json.loads(line)
        return row

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(args: argparse.Namespace) -> None:
    """Make a step per line of the standard input and print what it took."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    step = _step_of(args.configs[0], peer=args.serve == "peer", args=args)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        total = step()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        row = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": _peak_mb(args.device), "loss": total}
        print(json.dumps(row), flush=True)


def _step_of(config: str, *, peer: bool, args: argparse.Namespace) -> Callable[[], float]:
    """Return a function that makes a training step and returns the total of its losses."""
    import torch
    from detectron2.config import instantiate
    from torch import nn

    from align_detr import model_zoo

    cfg = model_zoo.get_config(config)
    dropout = 0.0 if args.dropout_off else DROPOUT
    _set_dropout(cfg.model, dropout)
    torch.manual_seed(0)
    model: nn.Module = instantiate(cfg.model).to(args.device).train()
    batch = _batch(int(model.num_classes))
    inputs: Any = (batch,)
    if peer:
        from peer_detectors import build_peer, peer_inputs

        options = peer_inputs(batch, model.pixel_mean, model.pixel_std)
        freeze_at = cfg.model.backbone.freeze_at
        model = build_peer(config, num_classes=int(model.num_classes), freeze_at=freeze_at, dropout=dropout)
        model = model.to(args.device).train()
    cfg.optimizer.params.model = model
    if peer:
        cfg.optimizer.params.lr_factors = {"backbone": 0.1}  # another library's names: as many groups, for AdamW
    optimizer, max_norm = instantiate(cfg.optimizer), cfg.train.clip_grad.max_norm
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bfloat16):
            losses = model(**options).loss if peer else sum(model(*inputs).values())
        losses.backward()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        return float(losses)

    return step


def _set_dropout(node: Any, value: float) -> None:
    """Set every dropout of a model's config that is not 0."""
    from omegaconf import DictConfig, ListConfig

    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        if key == "dropout" and node[key]:
            node[key] = value
        elif isinstance(node[key], (DictConfig, ListConfig)):
            _set_dropout(node[key], value)


def _batch(num_classes: int) -> list[dict[str, Any]]:
    """Return noise images with random boxes, in the mapper's form."""
    import torch
    from detectron2.structures import Boxes, Instances

    torch.manual_seed(1)
    batch = []
    for _ in range(IMAGES):
        corners = torch.rand(OBJECTS, 2, 2).sort(dim=1).values * torch.tensor([WIDTH, HEIGHT])
        classes = torch.randint(num_classes, (OBJECTS,))
        instances = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(corners.flatten(1)), gt_classes=classes)
        image = torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": HEIGHT, "width": WIDTH})
    return batch


def _peak_mb(device: str) -> float:
    """Return the peak memory in 10^6 bytes: of PyTorch's allocator on CUDA, else of the process."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def compare(config: str, folders: dict[str, Path], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return per side the medians of its turns, and the ratios of the others' turns to this build's."""
    sides = {name: Side(name, config, folder, args) for name, folder in folders.items()}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    try:
        for _ in range(args.warm_up + args.repeats):
            for name, side in sides.items():
                turns[name].append(side.step())
    finally:
        for side in sides.values():
            side.close()
    results: dict[str, dict[str, Any]] = {}
    for name, rows in turns.items():
        kept = rows[args.warm_up :]
        result: dict[str, Any] = {
            key: statistics.median(row[key] for row in kept) for key in ("seconds", "cpu_seconds")
        }
        ratios = sorted(
            row["seconds"] / ours["seconds"] for row, ours in zip(kept, turns[OURS][args.warm_up :], strict=True)
        )
        result["peak_mb"] = rows[-1]["peak_mb"]
        result["first_losses"] = [row["loss"] for row in rows[:3]]
        result["ratio"], result["ratio_low"], result["ratio_high"] = statistics.median(ratios), ratios[0], ratios[-1]
        results[name] = result
    return results


def table(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| config | side | step, s | CPU, s | ratio | of single turns | peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for config, sides in rows.items():
        for name, row in sides.items():
            ratio, spread = f"{row['ratio']:.2f}", f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}"
            ratio, spread = ("", "") if name == OURS else (ratio, spread)
            first = f"`{config}`" if name == OURS else ""
            times = f"{row['seconds']:.2f} | {row['cpu_seconds']:.2f}"
            lines.append(f"| {first} | {name} | {times} | {ratio} | {spread} | {row['peak_mb']:.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the sides, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of each side, on the CPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2, help="first steps, which do not count")
    parser.add_argument("--dropout-off", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="autocast of the forward pass")
    parser.add_argument("--earlier", type=Path, metavar="FOLDER", help="another checkout of this library")
    parser.add_argument("--no-peer", action="store_true", help="without transformers, even if it is installed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--short", action="store_true", help="the first config, three turns: about a minute")
    parser.add_argument("--serve", choices=("build", "peer"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve(args)
        return
    if args.short:
        args.configs, args.repeats, args.warm_up = args.configs[:1], 3, 1
    from peer_detectors import PEERS, is_installed

    here = Path(__file__).resolve().parents[1]
    peer = is_installed() and not args.no_peer
    if not peer and not args.no_peer:
        print('transformers is not installed, so only this library is measured: pip install -e ".[peers]"')
    rows = {}
    for config in args.configs:
        folders = {OURS: here}
        if args.earlier:
            folders[EARLIER] = args.earlier.resolve()
        if peer and config in PEERS:
            folders[PEER] = here
        rows[config] = compare(config, folders, args)
        print(table({config: rows[config]}), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
