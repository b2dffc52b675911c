"""`.pt2` files: programs of `torch.export`, described, checked and written."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from align_detr.export.metadata import KEY
from align_detr.export.module import ExportedDetector
from align_detr.export.onnx_file import write_whole
from align_detr.export.options import ExportOptions
from align_detr.export.tracing import PIXELS, SCORE, check, quiet


def write(
    path: Path, program: ExportedProgram, options: ExportOptions, module: ExportedDetector, description: str
) -> None:
    """Compare a program with its detector and write it, with its description under the extra file's name `align_detr`.

    The program has PyTorch's own operators alone: `torch.export.load` needs nothing of this library.
    """
    content = io.BytesIO()
    with quiet():
        torch.export.save(program, content, extra_files={KEY: description})
        content.seek(0)
        loaded = torch.export.load(content).module()

    def run(images: Tensor, sizes: Tensor) -> Sequence[np.ndarray]:
        with torch.no_grad():
            return [x.numpy() for x in loaded(images, sizes)]

    check(module, run, options, pixels=PIXELS, score=SCORE)
    write_whole(path, content.getvalue())
