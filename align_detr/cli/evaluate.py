"""`align-detr evaluate`: evaluate a checkpoint on a data set's folder, whatever its layout."""

import argparse
from collections.abc import Sequence

from align_detr.cli.help_texts import DATA_HELP, EXIT_CODES, LAYOUT_HELP, LAYOUTS, SEED_HELP
from align_detr.cli.requirements import require_detectron2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr evaluate",
        description="Evaluate a checkpoint on a data set's folder: COCO's AP, also per class.",
        epilog="The detections are written as COCO's results file. Example: align-detr evaluate --data raccoon "
        f"--weights output/raccoon/weights.pth. {EXIT_CODES}",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help=DATA_HELP)
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="checkpoint of a training, or official weights"
    )
    parser.add_argument(
        "--config-file",
        metavar="NAME",
        help="path, or name in the model zoo; default: the config in the weights, else config.yaml beside them",
    )
    parser.add_argument(
        "--plain-weights", action="store_true", help="of a checkpoint with averaged weights, evaluate the plain ones"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="default: val, else test, else all")
    parser.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="where there is no validation split, evaluate what `train --data` holds out (default with --split "
        "val: 0.2)",
    )
    parser.add_argument("--split-seed", type=int, metavar="N", help=SEED_HELP)
    parser.add_argument("--layout", choices=LAYOUTS, help=LAYOUT_HELP)
    parser.add_argument(
        "--layers",
        action="store_true",
        help="evaluate every decoder layer as well (0: the encoder's proposals) and describe its matching: a results "
        "file per layer, and matching.json, in `inference/layers`",
    )
    parser.add_argument(
        "--against",
        default="",
        metavar="FILE",
        help="with --layers: another checkpoint of the same config; how many objects change their query between the "
        "two is in matching.json",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the config, e.g. train.device=cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.engine.from_folder import evaluate

    evaluate(
        args.weights,
        data=args.data,
        split=args.split,
        config_file=args.config_file,
        overrides=args.overrides,
        layout=args.layout,
        val_fraction=args.val_fraction,
        split_seed=args.split_seed,
        averaged=not args.plain_weights,
        layers=args.layers,
        against=args.against,
    )
    return 0
