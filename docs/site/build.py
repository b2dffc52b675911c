"""Build the site into site/: `make docs` calls it. It needs the packages of requirements.txt and no network.

    python docs/site/build.py [--out DIR]

The sources are laid out in build/docs: the repository's pages, the reference and the model zoo. Any warning ends the
build.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]
os.environ["COLUMNS"] = "100"  # of the commands' helps

from pages import copy_pages  # noqa: E402
from reference import write_reference  # noqa: E402
from zoo import write_zoo  # noqa: E402


def lay_out(source: Path) -> None:
    """Write all pages into an empty folder `source`."""
    shutil.rmtree(source, ignore_errors=True)
    write_reference(source)
    write_zoo(source)
    copy_pages(source)


def main() -> int:
    """Build, and return Sphinx's exit status."""
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "site", metavar="DIR", help="default: site")
    out = parser.parse_args().out
    source = ROOT / "build" / "docs"
    lay_out(source)
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(HERE), str(source), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, "-d", str(source / ".doctrees")], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
