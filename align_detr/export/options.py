"""What a file is to be like, and what it needs to be written."""

import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from align_detr.checks import check_choice, check_count, check_flag
from align_detr.errors import ConfigError, EnvironmentProblem

ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "compiled": ".pt2"}
FORMATS = tuple(ENDINGS)
INPUTS = ("uint8", "normalised")
DYNAMIC = "dynamic"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """The form of an exported file; `size` and `batch` are None where they are free.

    size: (height, width) in pixels; batch: images per pass; normalised: whether images come normalised; fp16: weights
    and arithmetic in half precision; simplify: whether onnxscript's rewriting rules run over the graph; int8: a folder
    of images to calibrate an int8 file with, or None.
    """

    size: tuple[int, int] | None
    batch: int | None = 1
    normalised: bool = False
    fp16: bool = False
    simplify: bool = False
    int8: Path | None = None

    @property
    def precision(self) -> str:
        """The precision as the file's description names it."""
        return "int8" if self.int8 is not None else "fp16" if self.fp16 else "fp32"

    def check(self, file_format: str) -> None:
        """Raise ConfigError for options that exclude each other, and an int8 that is no folder."""
        if self.fp16 and self.int8 is not None:
            raise ConfigError("fp16 and int8 are two precisions: choose one of them.")
        for name, wanted in {"fp16": self.fp16, "simplify": self.simplify, "int8": self.int8 is not None}.items():
            if wanted and file_format != "onnx":
                raise ConfigError(f"{name} is for ONNX files: leave it out, or set format to onnx.")
        if self.int8 is not None and not self.int8.is_dir():
            raise ConfigError(
                f"int8 is {self.int8}, which is no folder: name one with a hundred images like those to come."
            )


def read_options(
    file_format: str,
    *,
    size: object,
    batch: object = 1,
    normalised: bool = False,
    fp16: bool = False,
    int8: str | Path | None = None,
    simplify: bool = False,
) -> ExportOptions:
    """Return options as a user gives them (`Detector.export`), checked against a format and what is installed.

    Raise ConfigError for options that cannot be, and EnvironmentProblem for a package or a compiler that is missing.
    """
    options = ExportOptions(
        size=read_size(size),
        batch=read_batch(batch),
        normalised=check_flag(normalised, "normalised"),
        fp16=check_flag(fp16, "fp16"),
        simplify=check_flag(simplify, "simplify"),
        int8=None if int8 is None else Path(int8),
    )
    options.check(file_format)
    {"onnx": require_packages, "compiled": require_compiler}.get(file_format, lambda: None)()
    return options


def read_size(size: object) -> tuple[int, int] | None:
    """Return (height, width) of a pair, a number for a square, or a text such as 800x1333; None for "dynamic".

    Raise ConfigError for anything else.
    """
    if size == DYNAMIC:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
        pair: object = match and [int(x) for x in (match[1], match[2] or match[1])]
    else:
        pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ConfigError(f"size is {size!r}, but must be height and width in pixels such as 800x1333, or dynamic.")
    height, width = (check_count(x, "size", 32, "give at least 32 pixels for height and width") for x in pair)
    return height, width


def read_batch(batch: object) -> int | None:
    """Return the number of images per pass, None for "dynamic"; raise ConfigError for anything else."""
    if batch == DYNAMIC:
        return None
    count: Any = int(batch) if isinstance(batch, str) and batch.isdecimal() else batch
    return check_count(count, "batch", 1, 'give the number of images per pass, or "dynamic"')


def check_file(file: str | Path, file_format: str) -> Path:
    """Return the path of a file to be written; raise ConfigError for an unknown format or a wrong ending, and
    EnvironmentProblem for a folder in which it cannot be written.
    """
    check_choice(file_format, "format", FORMATS)
    path = Path(file)
    if path.suffix.lower() != ENDINGS[file_format] or path.is_dir():
        raise ConfigError(f"{path} is no name for the format {file_format}: end it with {ENDINGS[file_format]}.")
    folder = next(x for x in path.absolute().parents if x.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise EnvironmentProblem(f"{path} cannot be written, as {folder} cannot be written to: name another folder.")
    return path


def require_packages() -> None:
    """Raise EnvironmentProblem if a package that ONNX files need cannot be imported."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise EnvironmentProblem(
                f"ONNX files need {name}, which cannot be imported ({error}): pip install 'align_detr[export]'."
            ) from error


def require_compiler() -> None:
    """Raise EnvironmentProblem if PyTorch cannot compile ahead of time, or finds no C++ compiler."""
    try:
        from torch._inductor import aoti_compile_and_package  # noqa: F401
        from torch._inductor.cpp_builder import get_cpp_compiler
    except ImportError as error:
        raise EnvironmentProblem(
            f"This PyTorch cannot compile ahead of time ({error}): install PyTorch 2.6 or newer, or export with format "
            "torch."
        ) from error
    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise EnvironmentProblem(
            "The format compiled needs a C++ compiler, and PyTorch finds none: install g++, name another in the "
            "environment variable CXX, or export with format torch."
        ) from error
