"""Compiled `.pt2` files: a program of `torch.export` as machine code, by PyTorch's ahead-of-time compiler."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from align_detr.errors import EnvironmentProblem
from align_detr.export.metadata import KEY
from align_detr.export.module import ExportedDetector
from align_detr.export.onnx_file import write_whole
from align_detr.export.options import ExportOptions
from align_detr.export.tracing import PIXELS, SCORE, check, first_line, quiet

# freezing: weights are constants, in the layouts of the CPU's kernels
SETTINGS = {"freezing": True}


def write(
    path: Path, program: ExportedProgram, options: ExportOptions, module: ExportedDetector, description: str
) -> None:
    """Compile a program for this processor, compare it with its detector and write it, with its description under
    `align_detr` in its metadata.

    Raise EnvironmentProblem if the compiler fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        package = compile_program(program, Path(temporary) / "compiled.pt2", description)
        loaded = load(package)

        def run(images: Tensor, sizes: Tensor) -> Sequence[np.ndarray]:
            with torch.no_grad():
                return [x.numpy() for x in loaded(images, sizes)]

        check(module, run, options, pixels=PIXELS, score=SCORE)
        write_whole(path, package.read_bytes())


def compile_program(program: ExportedProgram, package: Path, description: str) -> Path:
    """Write the package of a program and return its path; raise EnvironmentProblem if the compiler fails."""
    from torch._inductor import aoti_compile_and_package

    settings = {**SETTINGS, "aot_inductor.metadata": {KEY: description}}
    try:
        with torch.no_grad(), quiet():
            aoti_compile_and_package(program, package_path=str(package), inductor_configs=settings)
    except Exception as error:  # compilers raise errors of many kinds
        raise EnvironmentProblem(
            f"PyTorch {torch.__version__} cannot compile this detector ({first_line(error)}): export with format torch."
        ) from error
    return package


def load(package: Path) -> Any:
    """Return a compiled program as a function of images and sizes. It is machine code, which runs."""
    from torch._inductor import aoti_load_package

    with quiet():
        return aoti_load_package(str(package))
