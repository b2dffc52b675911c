"""The detector of digits that comes with the package, made again: the digits of `make demo`, in half precision.

    python benchmarks/digits_weights.py [--seed 42] [--run output/digits] [--out align_detr/weights/digits.pth]

Trains `quickstart/digits.py` in the folder --run, unless a finished training lies there; writes its averaged weights in
half precision, with class names and config, and prints size and AP of the written file, read back as float32, on the
400 held-out images. The same seed gives the same weights only with the same machine, libraries and number of threads.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from align_detr.checkpoint.contents import WEIGHTS_FILE
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.engine.run import evaluate_only, train
from align_detr.engine.start import set_up
from align_detr.lazy_config import load_config

LIMIT = 5_000_000  # bytes


def main(argv: Sequence[str] | None = None) -> None:
    """Make the file, and print its size and AP."""
    parser = argparse.ArgumentParser(description="Make the detector of digits that comes with the package.")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--run", default="output/digits", metavar="DIR", help="folder of the training")
    parser.add_argument("--out", default="align_detr/weights/digits.pth", metavar="FILE")
    args = parser.parse_args(argv)
    cfg = load_config("quickstart/digits.py", [f"train.output_dir={args.run}", f"train.seed={args.seed}"])
    set_up(cfg.train)
    trained, out = Path(args.run, WEIGHTS_FILE), Path(args.out)
    if not trained.is_file():
        train(cfg, overwrite=True)
    size = write_half(trained, out)
    results = evaluate_only(cfg, checkpoint=str(out))["bbox"]
    print(f"{out}: {size:,} bytes, AP {results['AP']:.1f}, AP50 {results['AP50']:.1f}, AP75 {results['AP75']:.1f}")


def write_half(trained: Path, out: Path) -> int:
    """Write what the file `trained` holds to `out`, its numbers in half precision; return the size in bytes."""
    content = read_checkpoint(str(trained))
    content["model"] = {name: _half(name, value) for name, value in content["model"].items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, out)
    size = out.stat().st_size
    if size >= LIMIT:
        raise SystemExit(f"{out} has {size:,} bytes, but the package carries at most {LIMIT:,}: train a smaller model.")
    return size


def _half(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor in half precision; raise SystemExit for numbers beyond its range."""
    half = value.half() if value.is_floating_point() else value
    if not half.isfinite().all():
        raise SystemExit(f"{name} has numbers beyond half precision's 65,504: train with a lower rate.")
    return half


if __name__ == "__main__":
    main()
