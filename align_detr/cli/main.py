"""`align-detr <subcommand>`: each subcommand has a file, which is imported only if it is called."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from align_detr import __version__
from align_detr.dependency_warnings import ignore_deprecated_script
from align_detr.errors import EXIT_USER_ERROR, AlignDetrError

# subcommand -> (module with `main(argv)`, line of the help)
COMMANDS = {
    "train": ("align_detr.cli.train", "train, resume or evaluate a detector, on a data set's folder or from a config"),
    "evaluate": ("align_detr.cli.evaluate", "evaluate a checkpoint on a data set's folder"),
    "predict": ("align_detr.cli.predict", "detect objects in images, folders and videos"),
    "export": ("align_detr.cli.export", "write a detector as an ONNX file or a torch.export program"),
    "convert": ("align_detr.cli.convert", "write a data set as COCO, Pascal VOC, YOLO or shards"),
    "validate": ("align_detr.cli.validate", "report all that is wrong with a data set; write a cleaned copy"),
    "report": ("align_detr.cli.report", "how well scores and boxes of detectors agree, as an HTML page"),
    "replay": ("align_detr.cli.replay", "compute the step of a fault report of training again"),
    "weights": ("align_detr.cli.weights", "say what a file of weights holds; write it under this library's names"),
    "zoo": ("align_detr.cli.zoo", "list the configs and the published weights"),
    "demo": ("align_detr.cli.demo", "train and evaluate a small detector on blood cells or digits, on the CPU"),
    "doctor": ("align_detr.cli.doctor", "say what this machine has and lacks, test it, and print a block for an issue"),
    "install-detectron2": ("align_detr.cli.install_detectron2", "install detectron2 where there is none"),
}


def usage() -> str:
    """Return the help text: one line per subcommand."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "usage: align-detr <subcommand> ...   (align-detr <subcommand> --help says more)\n\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand with the rest of `argv` (default: the process's) and return the exit status.

    EXIT_USER_ERROR stands for wrong usage and for a problem that the user can act on, printed as one sentence without
    a traceback; training that a signal has ended has EXIT_INTERRUPTED.
    """
    ignore_deprecated_script()
    arguments = sys.argv[1:] if argv is None else [*argv]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())
        return 0 if arguments else EXIT_USER_ERROR
    if arguments[0] == "--version":
        print(f"align-detr {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(COMMANDS)}."
        print(f"align-detr: there is no subcommand {name}: {hint}", file=sys.stderr)
        return EXIT_USER_ERROR
    try:
        return import_module(COMMANDS[name][0]).main(rest) or 0
    except AlignDetrError as problem:
        print(f"align-detr {name}: {problem}", file=sys.stderr)
        return problem.exit_status


if __name__ == "__main__":
    sys.exit(main())
