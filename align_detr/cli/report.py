"""`align-detr report`: how well scores and boxes of detectors agree, as one HTML page, from COCO results files."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align_detr.cli.help_texts import EXIT_CODES
from align_detr.errors import ConfigError, DatasetError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr report",
        description="Report how well the scores and boxes of detectors agree, as one HTML page without network: "
        "AP, recall of best-regressed boxes, calibration, oLRP with the score threshold to use, errors, duplicates, "
        "and a gallery of the worst cases. Several results files are compared, with intervals.",
        epilog="Example: align-detr report dino.json align_dino.json --gt instances_val.json --images val --out "
        "report.html. The figures are written as PNG files, too, into a folder beside the page (report_figures). "
        f"{EXIT_CODES}",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="COCO results files, of detectors of any framework; or the one JSON of an earlier report, to draw it anew",
    )
    parser.add_argument("--gt", metavar="FILE", help="COCO annotation file with the ground truth of the results")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every number of the page to FILE as well")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the detectors (default: from the files)")
    parser.add_argument("--images", metavar="DIR", help="folder of the photos, for the gallery")
    parser.add_argument(
        "--metrics", nargs="+", metavar="FILE", help="metrics.json of each detector's training, for the curves of AP"
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="DIR",
        help="folder of each detector's results per decoder layer, which evaluate --layers writes (layer_1.json ...)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=200,
        metavar="N",
        help="samples of the bootstrap over images (default: %(default)s; 0: no intervals)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--max-detections",
        type=int,
        default=100,
        metavar="N",
        help="best detections of a class in an image that count for AP (default: %(default)s, COCO's)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    parser = build_parser()
    args = parser.parse_args(argv)
    _check(args, parser)
    _check_files(args)

    # imported here, as all that needs numpy: `--help` works without it
    from align_detr.report import require_libraries, write_json, write_page
    from align_detr.report.training import read_training

    require_libraries()
    report = _read_report(args.results[0]) if args.gt is None else _analyse(args)
    names = [detector["name"] for detector in report["detectors"]]
    for option, given in (("--metrics", args.metrics), ("--layers", args.layers)):
        if given and len(given) != len(names):
            raise ConfigError(
                f"{option} has {len(given)} entries for {len(names)} detectors: name one of each, in order."
            )
    for detector, folder in zip(report["detectors"], args.layers or (), strict=False):
        detector["layers"] = _analyse_layers(args, Path(folder))
    if args.metrics:
        runs = [read_training(path, name) for path, name in zip(args.metrics, names, strict=True)]
        report = {**report, "training": [run for of_detector in runs for run in of_detector]}
    if args.json:
        write_json(report, args.json)
    page, *figures = write_page(report, args.out, images=args.images)
    print(f"The page is {page}, its {len(figures)} figures are in {figures[0].parent}.")
    return 0


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise ConfigError for arguments that do not fit together."""
    if args.gt is None and len(args.results) > 1:
        raise ConfigError("Results files alone have no ground truth: name its annotation file, --gt FILE.")
    for option in ("--names", "--layers", "--samples", "--seed", "--max-detections"):
        key = option[2:].replace("-", "_")
        if args.gt is None and getattr(args, key) != parser.get_default(key):
            raise ConfigError(f"{option} goes with results files: name their ground truth, --gt FILE.")
    if args.names and len(args.names) != len(args.results):
        raise ConfigError(
            f"--names has {len(args.names)} names for {len(args.results)} results files: give each file a name."
        )
    least_values = (
        ("--samples", args.samples, 0),
        ("--seed", args.seed, 0),
        ("--max-detections", args.max_detections, 1),
    )
    for option, value, least in least_values:
        if value < least:
            raise ConfigError(f"{option} {value} is below {least}: give a larger number.")


def _check_files(args: argparse.Namespace) -> None:
    """Raise ConfigError if the page or the JSON would be written over a file that is read, or over each other.

    The JSON of an earlier report may be written anew.
    """
    read = {Path(path).resolve() for path in (*args.results, args.gt, *(args.metrics or ())) if path}
    page = Path(args.out).resolve()
    if page in read:
        raise ConfigError(f"--out {args.out} is a file that is read, and would be lost: name another file.")
    if args.json is None:
        return
    numbers = Path(args.json).resolve()
    if args.gt is None:
        read.remove(Path(args.results[0]).resolve())
    if numbers in read:
        raise ConfigError(f"--json {args.json} is a file that is read, and would be lost: name another file.")
    if numbers == page:
        raise ConfigError(f"--json {args.json} is the page's file, too: name another file.")


def _analyse(args: argparse.Namespace) -> dict[str, Any]:
    """Return the report on results files."""
    from align_detr.analysis.report import analyse_files

    return analyse_files(
        args.gt,
        args.results,
        names=args.names,
        max_detections=args.max_detections,
        samples=args.samples,
        seed=args.seed,
    )


def _analyse_layers(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return the overall metrics of each decoder layer, from the first; the encoder's proposals (0) are left out."""
    from align_detr.analysis.report import analyse_files

    numbered = {
        int(path.stem.removeprefix("layer_")): path for path in folder.glob("layer_*.json") if _has_number(path)
    }
    files = [path for number, path in sorted(numbered.items()) if number > 0]
    if not files:
        raise DatasetError(f"{folder} of --layers has no layer_1.json: name a folder that evaluate --layers wrote.")
    lacking = next((k for k in range(1, max(numbered)) if k not in numbered), None)
    if lacking is not None:
        raise DatasetError(f"{folder} of --layers has no layer_{lacking}.json: evaluate all layers again.")
    names = [path.stem for path in files]
    report = analyse_files(args.gt, files, names=names, max_detections=args.max_detections, samples=0)
    return [detector["overall"] for detector in report["detectors"]]


def _has_number(path: Path) -> bool:
    return path.stem.removeprefix("layer_").isdecimal()


def _read_report(path: str) -> dict[str, Any]:
    """Return the JSON of an earlier report; raise DatasetError for anything else."""
    from align_detr.analysis.report import FORMAT

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): correct its path.") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}): name a results file, or the JSON of a report.") from error
    if isinstance(content, list):
        raise ConfigError(f"{path} is a results file, which has no ground truth: name its annotation file, --gt FILE.")
    if not isinstance(content, dict) or content.get("format") != FORMAT or "detectors" not in content:
        raise DatasetError(
            f"{path} is neither a list of detections nor the JSON of a report of format {FORMAT}: name one of these."
        )
    _require_keys(content, path)
    return content


def _require_keys(report: dict[str, Any], path: str) -> None:
    """Raise DatasetError for a report without a part that every page shows."""
    needed: dict[str, tuple[Any, tuple[str, ...]]] = {
        "ground_truth": (report.get("ground_truth"), ("images", "objects", "crowd_objects", "classes"))
    }
    detectors = report["detectors"] if isinstance(report["detectors"], list) else [None]
    for number, detector in enumerate(detectors or [None]):
        needed[f"detectors[{number}]"] = detector, ("name", "detections", "overall", "per_class", "curves")
    for place, (part, keys) in needed.items():
        missing = [key for key in keys if not isinstance(part, dict) or key not in part]
        if missing:
            raise DatasetError(f"{path} is no whole report, {place} has no {missing[0]}: write it anew with --json.")
