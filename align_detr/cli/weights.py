"""`align-detr weights`: say what a file of weights holds, write it under this library's names, average several."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align_detr.cli.help_texts import EXIT_CODES
from align_detr.cli.requirements import require_detectron2
from align_detr.shipped import weights_file

if TYPE_CHECKING:
    from align_detr.checkpoint.contents import Weights


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog="align-detr weights",
        description="Say what a file of weights holds, write it under this library's names, or average several. "
        "No code of a file runs.",
        epilog=f"Examples: align-detr weights show detr-r50-e632da11.pth; align-detr weights convert "
        f"detr-r50-e632da11.pth detr.pth --config-file detr/detr_r50_500ep.py. {EXIT_CODES}",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|convert|mean")
    show = commands.add_parser("show", help="print origin, tensors, classes, iterations")
    convert = commands.add_parser("convert", help="write the weights alone, as .pth or .npz")
    mean = commands.add_parser("mean", help="write the mean of the last checkpoints of a training")
    for command in (show, convert):
        command.add_argument("file", metavar="FILE", help="weights of a training, of a release, or of a wrapper")
    mean.add_argument("files", metavar="FILE", nargs="+", help="checkpoints; integers and config are those of the last")
    mean.add_argument("--out", metavar="OUT", required=True, help="new file, .pth or .npz, as of convert")
    for command in (show, convert, mean):
        command.add_argument(
            "--plain-weights", action="store_true", help="of a file with averaged weights, take the plain ones"
        )
    convert.add_argument("out", metavar="OUT", help="new file, .pth or .npz; .pth also holds class names and config")
    convert.add_argument(
        "--config-file",
        metavar="NAME",
        help="path, or name in the model zoo: check the weights against it, and write it into the file",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0; raise AlignDetrError for what the user can correct."""
    args = build_parser().parse_args(argv)
    require_detectron2()

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.checkpoint.contents import read_weights
    from align_detr.checkpoint.mean import mean_of
    from align_detr.checkpoint.rewriting import describe, renamed, require_new_file, write_renamed

    if args.command != "show":
        require_new_file(args.out)  # before files of gigabytes are read
    if args.command == "mean":
        mean = mean_of([str(weights_file(file)) for file in args.files], averaged=not args.plain_weights)
        write_renamed(mean, args.out)
        print(f"{args.out}: {len(mean.state)} tensors, the mean of {len(args.files)} files")
        return 0
    weights = read_weights(weights_file(args.file), averaged=not args.plain_weights)
    if args.command == "show":
        print("\n".join(describe(weights)))
        return 0
    converted, config = renamed(weights), None
    if args.config_file:
        report, config = _check(args.config_file, converted)
        print(report)
    write_renamed(converted, args.out, config)
    names = converted.class_names if args.out.lower().endswith(".pth") else None  # .npz has no place for them
    print(f"{args.out}: {len(converted.state)} tensors{'' if names is None else f', {len(names)} classes'}")
    return 0


def _check(config_file: str, weights: "Weights") -> tuple[str, str | None]:
    """Load the weights into the config's model; return the report and, if they are the whole model, the config's text.

    Raise ConfigError for weights of a detector that are not those of the config's model.
    """
    from detectron2.config import LazyConfig, instantiate

    from align_detr.checkpoint.loading import load_weights
    from align_detr.lazy_config import load_config

    cfg = load_config(config_file)
    model, names = instantiate(cfg.model), weights.class_names
    same_classes = names is not None and len(names) == model.num_classes
    report = load_weights(model, weights, class_names=names if same_classes else None)
    if report.is_backbone:
        return str(report), None
    report.require_complete()
    report.require_nothing_left_over()
    with tempfile.TemporaryDirectory() as folder:
        LazyConfig.save(cfg, str(Path(folder, "config.yaml")))
        return str(report), Path(folder, "config.yaml").read_text()
