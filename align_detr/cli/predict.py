"""`align-detr predict`: detect objects in images, folders and videos."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_detr.cli.help_texts import EXIT_CODES
from align_detr.cli.requirements import require_detectron2
from align_detr.errors import EXIT_USER_ERROR, AlignDetrError, ConfigError
from align_detr.shipped import SHIPPED

if TYPE_CHECKING:
    from align_detr.detector import Detector
    from align_detr.export.onnx_detector import OnnxDetector

DRAWN = 0.3  # least score in pictures, by default


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr predict",
        description="Detect objects: draw them, and list them as COCO's JSON and as CSV.",
        epilog="Examples: align-detr predict photo.jpg --out found; align-detr predict photos clip.mp4 --weights "
        "output/cells/weights.pth --out found --json --csv. An image that cannot be read is named, counted and left "
        f"out, and the status is then 2. {EXIT_CODES}",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="image, folder of images (with its subfolders) or video"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights.pth or a checkpoint of a training, published weights with their --config-file, or the .onnx file "
        "of an export, which needs onnxruntime in place of torch; default: the digits' detector, which comes with the "
        "package",
    )
    parser.add_argument(
        "--config-file", metavar="NAME", help="path, or name in the model zoo; default: the config in the weights"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for all files, new or empty: nothing is written over"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write predictions.json: COCO's form, annotations with scores",
    )
    parser.add_argument("--csv", action="store_true", help="write predictions.csv: file,frame,class,score,x0,y0,x1,y1")
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help=f"least score; default: {DRAWN} in pictures, none in the JSON and the CSV",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="the K best detections per image (default: all)")
    parser.add_argument("--flip", action="store_true", help="look at each image flipped as well, and merge")
    parser.add_argument(
        "--sides", type=int, nargs="+", metavar="N", help="short sides to look at each image in, and merge"
    )
    parser.add_argument(
        "--white-level", type=float, metavar="L", help="white of grey images with more than 8 bits, such as 4095"
    )
    parser.add_argument("--device", metavar="D", help="cuda or cpu (default: cuda where there is a GPU)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per pass (default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or EXIT_USER_ERROR if an image could not be read.

    Raise AlignDetrError for what the user can correct.
    """
    args = build_parser().parse_args(argv)
    if not is_exported(args.weights):
        require_detectron2()

    # imported here, as all that needs numpy: `--help` works without it
    from align_detr.inference.sources import require_readable
    from align_detr.inference.writing import report, require_new

    out = Path(args.out)
    require_new(out)
    if args.config_file and not args.weights:
        raise ConfigError(f"--config-file {args.config_file} has no weights by itself: add --weights FILE.")
    if args.no_pictures and not (args.json or args.csv):
        raise ConfigError("--no-pictures alone writes nothing: add --json or --csv.")
    require_readable(args.sources)
    detector, waiting, options = load_exported(args) if is_exported(args.weights) else load(args)
    drawn = DRAWN if args.threshold is None else args.threshold
    unread: list[str] = []
    images, counts = 0, Counter[str]()

    def leave_out(error: AlignDetrError) -> None:
        print(f"align-detr predict: {error}", file=sys.stderr, flush=True)
        unread.append(str(error))

    found_in = detector.stream(
        args.sources,
        batch_size=args.batch_size,
        threshold=args.threshold,
        top_k=args.top_k,
        white_level=args.white_level,
        on_error=leave_out,
        **options,
    )
    threshold = None if args.no_pictures else drawn
    written = report(out, detector.classes, threshold=threshold, with_json=args.json, with_csv=args.csv)
    with waiting, written as files:
        for found in found_in:
            files.add(found)
            images += 1
            counts.update(found[found.scores >= drawn].labels)
    print(summary(images, len(unread), counts, drawn))
    if images or args.json or args.csv:
        print(f"The files are in {out}.")
    else:
        out.rmdir()
    return EXIT_USER_ERROR if unread else 0


# a detector, how its threads wait, and the options that it alone has
Loaded = tuple["Detector | OnnxDetector", AbstractContextManager[None], dict[str, Any]]


def is_exported(weights: str | None) -> bool:
    """Return whether a file is named as one of `align-detr export`."""
    return weights is not None and Path(weights).suffix.lower() == ".onnx"


def load(args: argparse.Namespace) -> Loaded:
    """Return the detector of a file of weights."""
    from align_detr.detector import Detector
    from align_detr.engine.shared_cpus import limit_threads, sharing_cpus

    config = args.config_file if args.config_file or args.weights else next(iter(SHIPPED))
    limit_threads()
    detector = Detector(config, weights=args.weights, device=args.device)
    return detector, sharing_cpus(), {"flip": args.flip, "sides": args.sides}


def load_exported(args: argparse.Namespace) -> Loaded:
    """Return the detector of an exported file; raise ConfigError for options that it does not have."""
    from align_detr.export.onnx_detector import OnnxDetector

    unknown = {"--config-file": args.config_file, "--flip": args.flip, "--sides": args.sides, "--device": args.device}
    given = [name for name, value in unknown.items() if value]
    if given:
        raise ConfigError(f"{args.weights} is an exported file, which has no {' and no '.join(given)}: leave it out.")
    return OnnxDetector(args.weights), nullcontext(), {}


def summary(images: int, unread: int, counts: "Counter[str]", threshold: float) -> str:
    """Return the counts of a prediction as one line."""
    per_class = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    left_out = f", {unread} not read" if unread else ""
    return (
        f"{images} images{left_out}; {sum(counts.values())} detections that score at least {threshold}"
        f"{': ' + per_class if per_class else ''}."
    )
