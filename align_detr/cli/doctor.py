"""`align-detr doctor`: what this machine has and lacks, with remedies, a self-test, and a block for an issue."""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_detr import __version__
from align_detr.cpus import usable_cpus
from align_detr.errors import EXIT_USER_ERROR, AlignDetrError
from align_detr.paths import cache_folder, data_folders
from align_detr.repack.installation import installed_repack

NEEDED = ("torch", "torchvision", "numpy", "scipy", "pillow", "pycocotools", "fvcore", "omegaconf", "msgspec")
# optional package -> what is slower or missing without it
OPTIONAL = {
    "numba": "SciPy matches, more slowly",
    "hotcoco": "pycocotools computes COCO's numbers, a hundred times as slowly",
    "jinja2": "no page of align-detr report",
    "av": "no videos",
    "safetensors": "no .safetensors files",
}
LEAST_DISK = 2  # GB


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what is there, and the problem with its remedy ("" for none)."""

    name: str
    value: str
    problem: str = ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="align-detr doctor",
        description="Say what this machine has, what is missing and how to get it, and print a block for an issue.",
        epilog="Exit status: 0, or 2 where something needed is missing or the self-test fails.",
    )
    parser.add_argument("--no-self-test", action="store_true", help="look only: detect nothing (a few seconds less)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return EXIT_USER_ERROR where a finding is a problem."""
    arguments = build_parser().parse_args(argv)
    findings = [*environment(), *packages(), detectron2_origin(), *gpus(), *folders(), disk()]
    if not any(finding.problem for finding in findings) and not arguments.no_self_test:
        findings.append(self_test())
    problems = [finding.problem for finding in findings if finding.problem]
    print("Paste this block into an issue:\n\n```text")
    print("\n".join(f"{x.name}: {without_home(x.value)}" for x in findings))
    print("```")
    for problem in problems:
        print(f"\n{without_home(problem)}")
    print("\n" + (f"{len(problems)} problem(s)." if problems else "Nothing is wrong."))
    return EXIT_USER_ERROR if problems else 0


def environment() -> list[Finding]:
    """Return the versions of this package, of Python and of the system, and the CPUs."""
    return [
        Finding("align-detr", __version__),
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        Finding("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        Finding("CPUs", f"{usable_cpus()} usable of {os.cpu_count()}"),
    ]


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> list[Finding]:
    """Return the versions of what is needed, with a problem for each that is missing, and of what is optional."""
    found = {name: version_of(name) for name in NEEDED}
    missing = [name for name, version in found.items() if version is None]
    problem = (
        f"{', '.join(missing)} missing: run `make setup`, or `pip install {' '.join(missing)}`." if missing else ""
    )
    needed = Finding(
        "packages", ", ".join(f"{name} {version or 'missing'}" for name, version in found.items()), problem
    )
    optional = [f"{name} {version_of(name) or f'missing ({without})'}" for name, without in OPTIONAL.items()]
    return [needed, Finding("optional packages", ", ".join(optional))]


def detectron2_origin() -> Finding:
    """Return detectron2's version and whether it is the repacked one, the user's, or only a folder on the path."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        return Finding("detectron2", "missing", "detectron2 is missing: run `align-detr install-detectron2`.")
    repack = installed_repack()
    origin = {None: "found on the path, not installed", "": "installed by you"}.get(repack, "installed by align-detr")
    where = next(iter(spec.submodule_search_locations or [""]))
    return Finding("detectron2", f"{version_of('detectron2') or 'unknown version'}, {origin}, at {where}")


def gpus() -> list[Finding]:
    """Return each GPU's name and memory, CUDA's version and the driver's fit."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    built = torch.version.cuda
    if not torch.cuda.is_available():
        return [Finding("GPU", f"none (PyTorch is built for {f'CUDA {built}' if built else 'the CPU alone'})")]
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [Finding("GPU", f"{x.name}, {x.total_memory / 2**30:.0f} GB, CUDA {built}") for x in names]


def folders() -> list[Finding]:
    """Return the folders in which data is looked for, and whether they exist."""
    named = os.environ.get("DETECTRON2_DATASETS")
    places = {"small data": data_folders(), "cache": [cache_folder()]}
    if named:
        places["DETECTRON2_DATASETS"] = [Path(named).expanduser()]
    found = [
        Finding(name, ", ".join(f"{x}{'' if x.is_dir() else ' (not there)'}" for x in x)) for name, x in places.items()
    ]
    return found if named else [*found, Finding("DETECTRON2_DATASETS", "not set (./datasets)")]


def disk() -> Finding:
    """Return the free space of the working folder's disk, a problem below LEAST_DISK."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    problem = f"{free:.1f} GB are free on the disk of {Path.cwd()}: make room, a checkpoint needs up to 1 GB."
    return Finding("disk", f"{free:.0f} GB free in {Path.cwd()}", problem if free < LEAST_DISK else "")


def self_test() -> Finding:
    """Return what the shipped detector finds in an empty picture, on the CPU and on a GPU, where they have to agree."""
    start = time.perf_counter()
    try:
        importlib.import_module("align_detr.detector")
        imports = time.perf_counter() - start
        scores = detect()
    except (AlignDetrError, RuntimeError, ImportError, OSError) as error:
        return Finding("self-test", f"failed: {error}", f"The self-test failed: {type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    reference = scores["cpu"]
    for device, found in scores.items():
        if len(found) != len(reference) or any(abs(a - b) > 1e-2 for a, b in zip(found, reference, strict=True)):
            text = f"{device} disagrees with the CPU"
            return Finding("self-test", text, f"The self-test failed: {text}: report it with the block above.")
    return Finding("self-test", f"passed on {', '.join(scores)} in {seconds:.1f} s, {imports:.1f} of them imports")


def detect() -> dict[str, list[float]]:
    """Return device -> sorted scores of the digits' detector in one picture."""
    import torch
    from PIL import Image

    from align_detr import Detector

    picture = Image.new("RGB", (128, 96), "white")
    found = {}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        detections = Detector("digits", device=device).predict(picture)
        found[device] = sorted(detections.scores.tolist(), reverse=True)[:10]
    return found


def without_home(text: str) -> str:
    """Return a text with the home folder, which names a person, as ~."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
