"""The detectron2 of this interpreter: which one is there, whether ours replaces it, and how ours is installed."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from align_detr.errors import EnvironmentProblem
from align_detr.repack.wheel import repack_notice

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
    """Return what pip has installed as detectron2: None for nothing, "" for one of the user's, else our notice."""
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None
    return distribution.read_text("REPACKED") or ""


def needs_install() -> bool:
    """Decide whether to install our wheel; print what is there when not.

    Raise EnvironmentProblem for a detectron2 of the user's that cannot be imported: it is never replaced.
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
    """Install `wheel` by path into this interpreter and check that detectron2 can be imported.

    Raise EnvironmentProblem where pip fails or the import does.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    result = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentProblem(f"pip could not install {wheel.name} ({reason}): make this environment writable.")
    works, message = try_import()
    if not works:
        raise EnvironmentProblem(
            f"detectron2 is installed but cannot be imported ({message}): run `pip install -r requirements.txt`."
        )
    print(f"detectron2 {message} installed")
