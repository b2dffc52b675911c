"""`align-detr validate DATA`: all that is wrong with a data set, before training; `--fix` writes a cleaned copy."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from align_detr.errors import EXIT_USER_ERROR, DatasetError

_EPILOG = """
what is said of each problem:
  error    training refuses the data, or its results would be wrong
  repair   training repairs it when it loads the data, and logs it
  note     for you to look at

exit status: 0 if the data can be used (no errors), 2 if there are errors, if DATA cannot be read, or after wrong usage

examples:
  align-detr validate data/cells
  align-detr validate train.json val.json --image-root photos --json report.json
  align-detr validate data/cells --fix data/cells_clean
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr validate",
        description="Report all that is wrong with a data set: annotations, images, classes, photos in two splits.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="a folder (COCO, Pascal VOC, YOLO), or COCO JSON files and registered names, one split each",
    )
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="OUT",
        help="write a cleaned copy of the annotations (COCO) into the new folder OUT, with the list of all that was "
        "left out, converted or repaired (changes.txt, changes.json); DATA stays as it is, and images are not copied",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to FILE as JSON, too")
    parser.add_argument("--no-images", action="store_true", help="do not open images: seconds instead of minutes")
    parser.add_argument("--layout", metavar="NAME", help="coco, voc, yolo or shards, for a folder that holds several")
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="the folder of a COCO file's images")
    parser.add_argument(
        "--queries", type=int, default=100, metavar="N", help="queries of the detector to train (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if the data can be used, else EXIT_USER_ERROR.

    Raise DatasetError for data that cannot be read, for a folder OUT that exists or overlaps that of the data, and for
    files that cannot be written.
    """
    args = build_parser().parse_args(argv)

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.data.new_folder import require_apart
    from align_detr.data.validation import fix, validate

    if args.fix is not None:
        require_apart(args.fix, args.data)
        if args.fix.expanduser().exists():
            raise DatasetError(f"{args.fix} exists: name a new folder for the cleaned copy.")
    report = validate(
        args.data,
        open_images=not args.no_images,
        layout=args.layout,
        image_root=args.image_root,
        queries=args.queries,
    )
    print(report.text())
    if args.json is not None:
        try:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
        except OSError as error:
            raise DatasetError(f"{args.json} cannot be written ({error}): name another file.") from error
    if args.fix is not None:
        changes = [change for of_split in fix(report, args.fix).values() for change in of_split]
        entries = sum(len(change.entries) for change in changes)
        print(f"wrote {args.fix} with {entries} changes, listed in {args.fix / 'changes.txt'}")
    return 0 if report.usable else EXIT_USER_ERROR
