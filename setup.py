"""The package `align_detr`: its modules, the projects' packages, all configs as package data, the `align-detr` command.

In a wheel, configs/ lies in the package as align_detr/configs, and the configs of a project as
align_detr/projects/<Folder>/configs: the checkout's layout, so that relative imports between config files still hold.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PROJECTS = runpy.run_path(str(ROOT / "align_detr" / "projects" / "table.py"))["PROJECTS"]
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "align_detr" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)


def project_folders() -> dict[str, str]:
    """Package -> folder, relative to this file, of each project in the table and of its parts."""
    folders = {}
    for name, folder in PROJECTS.items():
        package = ROOT / "projects" / folder / name
        if not (package / "__init__.py").is_file():
            raise SystemExit(f"align_detr/projects/table.py names {folder}, but {package}/__init__.py is not there")
        for part in ["", *(f".{sub}" for sub in find_packages(str(package)))]:
            folders[f"align_detr.projects.{name}{part}"] = f"projects/{folder}/{name}{part.replace('.', '/')}"
    return folders


def config_folders() -> dict[str, str]:
    """The folders of config files, as packages that hold nothing but package data."""
    folders = {"align_detr.configs": "configs"}
    for folder in PROJECTS.values():
        if (ROOT / "projects" / folder / "configs").is_dir():
            folders[f"align_detr.projects.{folder}.configs"] = f"projects/{folder}/configs"
    return folders


CONFIGS = config_folders()
ELSEWHERE = {**project_folders(), **CONFIGS}

setup(
    name="align_detr",
    version=VERSION,
    description="Set-prediction object detectors and their IoU-aware (Align-DETR) versions for detectron2.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["align_detr", "align_detr.*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
    package_data={package: ["**/*.py", "**/*.yaml"] for package in CONFIGS},
    # detectron2 is not among these: nobody owns that name on the index. `align-detr install-detectron2` installs it.
    install_requires=[
        "torch>=2.1",
        "torchvision>=0.16",
        "numpy",
        "scipy",
        "pillow",
        "pycocotools>=2.0.2",
        "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.7,<0.1.10",
        "omegaconf>=2.1",
        "hydra-core>=1.1",
        "yacs>=0.1.8",
        "cloudpickle",
        "tabulate",
        "termcolor>=1.1",
        "tqdm",
        "tensorboard",
        "matplotlib",
        "scikit-learn",
        "unearth",
    ],
    extras_require={"numba": ["numba>=0.68"]},  # compiled matching; without it SciPy solves
    entry_points={"console_scripts": ["align-detr = align_detr.cli.main:main"]},
)
