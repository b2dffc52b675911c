"""The folders of the package `align_detr`: its modules, the projects' packages, configs and weights as data of it.

What else a wheel says of itself stands in pyproject.toml.

In a wheel, configs/ lies in the package as align_detr/configs, and the configs of a project as
align_detr/projects/<Folder>/configs: the checkout's layout, so that relative imports between config files still hold.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PROJECTS = runpy.run_path(str(ROOT / "align_detr" / "projects" / "table.py"))["PROJECTS"]


def project_folders() -> dict[str, str]:
    """Return package -> folder, relative to this file, of each project in the table and of its parts."""
    folders = {}
    for name, folder in PROJECTS.items():
        package = ROOT / "projects" / folder / name
        if not (package / "__init__.py").is_file():
            raise SystemExit(
                f"align_detr/projects/table.py names {folder}, but {package}/__init__.py does not exist: add it."
            )
        for part in ["", *(f".{sub}" for sub in find_packages(str(package)))]:
            folders[f"align_detr.projects.{name}{part}"] = f"projects/{folder}/{name}{part.replace('.', '/')}"
    return folders


def config_folders() -> dict[str, str]:
    """Return package -> folder of config files, as packages that hold package data alone."""
    folders = {"align_detr.configs": "configs"}
    for folder in PROJECTS.values():
        if (ROOT / "projects" / folder / "configs").is_dir():
            folders[f"align_detr.projects.{folder}.configs"] = f"projects/{folder}/configs"
    return folders


CONFIGS = config_folders()
ELSEWHERE = {**project_folders(), **CONFIGS}

setup(
    packages=[*find_packages(include=["align_detr", "align_detr.*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
    package_data={
        "align_detr": ["py.typed", "weights/*.pth", "report/page/*"],
        **{package: ["**/*.py", "**/*.yaml"] for package in CONFIGS},
    },
)
