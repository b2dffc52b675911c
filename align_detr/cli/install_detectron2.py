"""`align-detr install-detectron2`: make `import detectron2` work where the package index is all there is.

An installed detectron2 is left alone. Otherwise the pinned source archive of v0.5 is fetched from the package index,
checked, edited for today's libraries, written as a pure-Python wheel and installed by path. Also a plain script
(``python align_detr/cli/install_detectron2.py``), which needs neither this package installed nor torch imported.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

if not __package__:  # run by path: this file's folder leads sys.path, where the package's root belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from align_detr.errors import EXIT_USER_ERROR, AlignDetrError, EnvironmentProblem
from align_detr.repack.installation import install, needs_install
from align_detr.repack.package_index import fetch_source_archive
from align_detr.repack.wheel import ARCHIVE_REQUIREMENT, WHEEL_NAME, write_wheel


def read_archive(path: Path | None) -> bytes:
    """Return the source archive in the file `path`, or the one of the package index where `path` is None."""
    if path is None:
        return fetch_source_archive(ARCHIVE_REQUIREMENT)
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(
            f"The archive {path} cannot be read ({error.strerror}): pass the path of a local copy."
        ) from error


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = "Make `import detectron2` work where the package index is all there is."
    parser = argparse.ArgumentParser(prog="align-detr install-detectron2", description=description)
    parser.add_argument("--archive", type=Path, metavar="FILE", help="a local copy of the pinned source archive")
    parser.add_argument("--wheel-dir", type=Path, metavar="DIR", help=f"only write {WHEEL_NAME} into DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand with `argv` (default: the process's) and return its exit status.

    Raise EnvironmentProblem for what the user can act on.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.wheel_dir is not None:
        print(f"wrote {write_wheel(read_archive(arguments.archive), arguments.wheel_dir)}")
    elif needs_install():
        with TemporaryDirectory() as folder:
            install(write_wheel(read_archive(arguments.archive), Path(folder)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AlignDetrError as problem:
        print(f"install-detectron2: {problem}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
