"""`align-detr replay`: compute the step of a fault report again."""

import argparse
from collections.abc import Sequence

from align_detr.cli.help_texts import EXIT_CODES
from align_detr.cli.requirements import require_detectron2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr replay",
        description="Compute the batch of a fault report again: images, losses, the first layer whose output is not "
        "finite, the largest gradients. The report's files are read without running code from them.",
        epilog="Examples: align-detr replay output/fault_0000017.json; align-detr replay output/fault_0000017.json "
        f"train.amp.enabled=False. {EXIT_CODES}",
    )
    parser.add_argument("report", metavar="REPORT", help="fault_*.json in the output folder of a training")
    parser.add_argument(
        "--config-file", metavar="NAME", help="path, or name in the model zoo; default: that beside the report"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights in place of those before the fault")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the config, e.g. train.device=cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.engine.replay import replay

    lines = replay(args.report, config_file=args.config_file, weights=args.weights, overrides=args.overrides)
    print("\n".join(lines))
    return 0
