"""`align-detr install-detectron2`: make `import detectron2` work where the package index is all there is.

An installed detectron2 is left alone. Otherwise the pinned source archive of v0.5 is fetched from the package index,
checked, edited for today's libraries, written as a pure-Python wheel and installed by path. Also a plain script
(``python align_detr/cli/install_detectron2.py``), which needs neither this package installed nor torch imported.
"""

import argparse
import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

if not __package__:  # run by path: this file's folder leads sys.path, where the package's root belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from align_detr.cli.detectron2_wheel import ARCHIVE_REQUIREMENT, WHEEL_NAME, repack_notice, write_wheel
from align_detr.cli.package_index import fetch_source_archive
from align_detr.errors import AlignDetrError, EnvironmentProblem

# What the package uses, so that an extension that no longer fits the installed torch is noticed here.
_TRIAL = (
    "import detectron2, detectron2.config, detectron2.engine, detectron2.evaluation, detectron2.modeling as m;"
    "print(detectron2.__version__, 'at', detectron2.__path__[0])"
)


def try_import() -> tuple[bool, str]:
    """Import detectron2 in a fresh interpreter: (True, version and folder) or (False, the error's last line)."""
    with TemporaryDirectory() as empty:  # a folder named detectron2 where we stand is not an installation
        result = subprocess.run([sys.executable, "-c", _TRIAL], cwd=empty, capture_output=True, text=True, check=False)
    lines = (result.stderr if result.returncode else result.stdout).strip().splitlines()
    return result.returncode == 0, lines[-1] if lines else f"exit status {result.returncode}"


def installed_repack() -> str | None:
    """Which detectron2 pip has installed: None for none, "" for one that is not ours, else our wheel's notice."""
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None
    return distribution.read_text("REPACKED") or ""


def needs_install() -> bool:
    """Whether to install our wheel; prints what is there when not.

    Raises EnvironmentProblem for a detectron2 of the user's that cannot be imported: it is never replaced.
    """
    repack = installed_repack()
    works, message = try_import()
    if works and repack in (None, "", repack_notice()):
        print(f"detectron2 {message} works and is left alone")
        return False
    if not works and repack == "":
        raise EnvironmentProblem(
            f"The installed detectron2 cannot be imported ({message}): repair it, or remove it with "
            "`pip uninstall detectron2` and run this again."
        )
    return True


def install(wheel: Path) -> None:
    """Install `wheel` by path into this interpreter and check that it can be imported."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    result = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentProblem(f"pip could not install {wheel.name} ({reason}): is this environment writable?")
    works, message = try_import()
    if not works:
        raise EnvironmentProblem(
            f"detectron2 is installed but cannot be imported ({message}): run `pip install -r requirements.txt`."
        )
    print(f"detectron2 {message} installed")


def run(arguments: argparse.Namespace) -> None:
    """Write the wheel into `arguments.wheel_dir`, or install it unless a detectron2 is there already."""
    if arguments.wheel_dir is None and not needs_install():
        return
    if arguments.archive is None:
        archive = fetch_source_archive(ARCHIVE_REQUIREMENT)
    else:
        try:
            archive = arguments.archive.read_bytes()
        except OSError as error:
            raise EnvironmentProblem(
                f"The archive {arguments.archive} cannot be read ({error.strerror}): pass the path of a local copy."
            ) from error
    if arguments.wheel_dir is not None:
        print(f"wrote {write_wheel(archive, arguments.wheel_dir)}")
        return
    with TemporaryDirectory() as folder:
        install(write_wheel(archive, Path(folder)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand with `argv` (default: the process's) and return its exit status; raises EnvironmentProblem."""
    parser = argparse.ArgumentParser(prog="align-detr install-detectron2", description=__doc__.split("\n\n")[0])
    parser.add_argument("--archive", type=Path, metavar="FILE", help="a local copy of the pinned source archive")
    parser.add_argument("--wheel-dir", type=Path, metavar="DIR", help=f"only write {WHEEL_NAME} into DIR")
    run(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AlignDetrError as problem:
        sys.exit(f"install-detectron2: {problem}")
