"""`align-detr export`: write a detector as a file that runs without this library."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align_detr.cli.help_texts import EXIT_CODES
from align_detr.cli.requirements import require_detectron2
from align_detr.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr export",
        description="Write a detector into one file: images and their sizes in; boxes, scores and labels out.",
        epilog="Examples: align-detr export --weights output/cells/weights.pth --out cells.onnx; align-detr export "
        "dino/dino_r50_4scale_12ep.py --weights dino.pth --out dino.onnx --size dynamic --batch dynamic. What the file "
        f"finds is compared with the detector before it is written. {EXIT_CODES}",
    )
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="path, or name in the model zoo; default: the config in the weights"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="weights of a training or published ones; default: random, to measure with"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="file to write: .onnx, or .pt2 for the other formats"
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "compiled"),
        default="onnx",
        help="an ONNX file (default), a program of torch.export, or that compiled ahead of time, by a C++ compiler",
    )
    parser.add_argument(
        "--size",
        metavar="HxW|dynamic",
        help="height and width in pixels; default: short and long side of the config's test mapper",
    )
    parser.add_argument("--batch", default="1", metavar="N|dynamic", help="images per pass (default: 1)")
    parser.add_argument(
        "--input",
        choices=("uint8", "normalised"),
        default="uint8",
        help="pixels in RGB, which the file normalises, or normalised images (default: uint8)",
    )
    onnx = parser.add_argument_group("ONNX files alone")
    onnx.add_argument("--fp16", action="store_true", help="half precision: half the size of the file")
    onnx.add_argument("--int8", metavar="FOLDER", help="8 bits, calibrated with the images of a folder")
    onnx.add_argument("--simplify", action="store_true", help="also run onnxscript's rewriting rules, for minutes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    args = build_parser().parse_args(argv)
    require_detectron2()
    if args.config is None and args.weights is None:
        raise ConfigError("There is nothing to export: name a config, a file of weights with --weights, or both.")

    from align_detr.detector import Detector  # here, as it needs torch: `--help` works without it
    from align_detr.export.options import DYNAMIC, check_file, read_options

    options: dict[str, Any] = {
        "batch": args.batch,
        "normalised": args.input == "normalised",
        "fp16": args.fp16,
        "int8": args.int8,
        "simplify": args.simplify,
    }
    check_file(args.out, args.format)  # before the detector, which takes time to build
    read_options(args.format, size=args.size or DYNAMIC, **options)
    detector = Detector(args.config, weights=args.weights, device="cpu")
    path = detector.export(args.out, args.format, size=args.size, **options)
    print(f"{path}: {Path(path).stat().st_size / 1e6:.1f} MB")
    return 0
