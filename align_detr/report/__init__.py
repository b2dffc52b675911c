"""The report of misalignment as a page: one HTML file that needs nothing else, and its figures as PNG files.

`write_page` takes the numbers of `align_detr.analysis`, the dictionary that is also the report's JSON. What it needs
beside numpy and Pillow is the extra `report`.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_detr.checkpoint.files import disk_problems
from align_detr.errors import EnvironmentProblem

__all__ = ["require_libraries", "write_json", "write_page"]

_NEEDED = {"jinja2": "jinja2", "matplotlib": "matplotlib", "sklearn": "scikit-learn"}


def require_libraries() -> None:
    """Raise EnvironmentProblem unless the libraries of the extra `report` are installed."""
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise EnvironmentProblem(
            f"The report needs {' and '.join(missing)}, which {sys.executable} cannot import: "
            "pip install 'align_detr[report]'."
        )


def write_page(
    report: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write the page of a report to `path`, and its figures into the folder beside it; return all files, `path` first.

    `images` is the folder that the file names of the ground truth start from, for the gallery's photos. The folder of
    the figures is called as the page, with "_figures" at the end. Raise DatasetError for a folder without the photos,
    and EnvironmentProblem for missing libraries and for files that cannot be written.
    """
    require_libraries()

    # imported here: they import the libraries
    from align_detr.report.page import build_sections, render
    from align_detr.report.pictures import save_pictures

    path = Path(path)
    with disk_problems(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    sections, notes = build_sections(report, None if images is None else Path(images))
    content = render(sections, report, notes)
    with disk_problems(path):
        path.write_text(content, encoding="utf-8")
        return [path, *save_pictures(sections, report, path.parent / f"{path.stem}_figures")]


def write_json(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the numbers of a report as strict JSON; raise EnvironmentProblem for a file that cannot be written."""
    with disk_problems(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
