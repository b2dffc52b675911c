"""mypy over the library and its projects, laid out as a wheel has them: `align_detr.projects.<name>` is a package."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from align_detr.projects.table import PROJECTS  # noqa: E402


def lay_out(folder: Path) -> None:
    """Link the package and each project's package into `folder`."""
    package = folder / "align_detr"
    (package / "projects").mkdir(parents=True)
    for path in (ROOT / "align_detr").iterdir():
        if path.name not in ("projects", "__pycache__"):
            (package / path.name).symlink_to(path)
    for path in (ROOT / "align_detr" / "projects").glob("*.py"):
        (package / "projects" / path.name).symlink_to(path)
    for name, project in PROJECTS.items():
        (package / "projects" / name).symlink_to(ROOT / "projects" / project / name)


def main() -> int:
    """Run mypy; print its errors with the checkout's paths and return its status."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        command = [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", "-p", "align_detr"]
        cache = f"--cache-dir={ROOT / '.mypy_cache'}"
        done = subprocess.run([*command, cache], cwd=folder, text=True, stdout=subprocess.PIPE, env=os.environ)
    for name, project in PROJECTS.items():
        done.stdout = done.stdout.replace(f"align_detr/projects/{name}/", f"projects/{project}/{name}/")
    print(done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
