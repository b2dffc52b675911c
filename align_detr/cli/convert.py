"""`align-detr convert`: write a data set of any layout as COCO, Pascal VOC, YOLO or shards."""

import argparse
import logging
from collections.abc import Sequence

from align_detr.cli.help_texts import DATA_HELP, EXIT_CODES, LAYOUT_HELP, LAYOUTS, SEED_HELP
from align_detr.cli.requirements import require_detectron2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr convert",
        description="Write a data set of any layout, with copies of its images, as COCO, Pascal VOC, YOLO or "
        "shards (tar files in WebDataset's form, with an index). Splits, the order of the classes and photos without "
        "objects stay. What a layout has no place for is counted: YOLO knows no crowd regions, Pascal VOC and YOLO no "
        "outlines of objects.",
        epilog=f"Example: align-detr convert raccoon_voc --to yolo --out raccoon_yolo. {EXIT_CODES}",
    )
    parser.add_argument("source", metavar="SOURCE", help=f"{DATA_HELP}; or the name of a registered data set")
    parser.add_argument("--to", required=True, choices=LAYOUTS, help="layout to write")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder")
    parser.add_argument("--layout", choices=LAYOUTS, help=LAYOUT_HELP)
    parser.add_argument(
        "--val-fraction", type=float, metavar="F", help="divide off a validation split, if there is none (default: no)"
    )
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help=SEED_HELP)
    parser.add_argument(
        "--shard-megabytes", type=float, default=256, metavar="MB", help="size of a full shard (default: %(default)s)"
    )
    parser.add_argument(
        "--shard-url",
        metavar="URL",
        help="where the shards will lie, if not beside their index (https://, s3://, gs://)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    args = build_parser().parse_args(argv)
    require_detectron2()

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.data.convert import convert

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    written = convert(
        args.source,
        to=args.to,
        out=args.out,
        layout=args.layout,
        val_fraction=args.val_fraction,
        split_seed=args.split_seed,
        shard_megabytes=args.shard_megabytes,
        shard_url=args.shard_url,
    )
    for name, split in written.splits.items():
        annotations = split.annotations
        print(f"{name}: {len(annotations.images)} images, {len(annotations.annotations)} objects")
    print(f"{args.out}: {args.to}, classes {', '.join(written.class_names)}")
    return 0
