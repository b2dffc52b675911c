"""`Detector.export`: a detector into one file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.export import compiled_file, description, onnx_file, quantization, torch_file
from align_detr.export.attention import use_unfused_attention
from align_detr.export.metadata import KEY, read_description
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.options import ExportOptions
from align_detr.export.tracing import PIXELS, SCORE, check, example, trace
from align_detr.inference.classes import Classes
from align_detr.inference.views import TestView

logger = logging.getLogger(__name__)


def default_size(view: TestView) -> tuple[int, int]:
    """Return the size that holds what the test mapper makes of a landscape photo; raise ConfigError if it does not
    resize.
    """
    resize = description.resize_of(view)
    if resize is None:
        raise ConfigError(
            "The config's test mapper does not resize images, so size is not known: give it, such as 480x640, or "
            '"dynamic".'
        )
    return resize["short_edge"], resize["max_size"]


def export(
    path: Path, file_format: str, options: ExportOptions, *, model: nn.Module, classes: Classes, view: TestView
) -> None:
    """Write a detector, as a graph of its normalised or uint8 images, into one file; raise AlignDetrError if it cannot
    be exported.
    """
    module = ExportedDetector(
        detection_copy(model), flip=view.image_format == "BGR", normalised=options.normalised
    ).eval()
    if file_format == "onnx":
        use_unfused_attention(module)
    with torch.no_grad():
        count = module(*example(options))[1].shape[1]
    described = description.describe(
        model,
        classes,
        view,
        size=options.size,
        batch=options.batch,
        normalised=options.normalised,
        num_detections=count,
        precision=options.precision,
    )
    text = description.as_text(described)
    program = trace(module, options)
    if file_format == "onnx":
        _write_onnx(path, program, options, module, text)
    else:
        write = compiled_file.write if file_format == "compiled" else torch_file.write
        write(path, program, options, module, text)
    logger.info("%s: %.1f MB, %s.", path, path.stat().st_size / 1e6, type(model).__name__)


def _write_onnx(path: Path, program: Any, options: ExportOptions, module: ExportedDetector, text: str) -> None:
    """Translate, compare, make smaller and write."""
    translated = onnx_file.translate(program, options)
    check(module, onnx_file.OnnxRun(translated.SerializeToString()), options, pixels=PIXELS, score=SCORE)
    if options.fp16:
        translated = onnx_file.to_half(translated)
    if options.int8 is not None:
        described = read_description({KEY: text}, str(path))
        translated = quantization.quantize(translated, options.int8, described)
    onnx_file.add_description(translated, text)
    found = onnx_file.OnnxRun(translated.SerializeToString())(*example(options))  # a smaller file runs, too
    require_finite(found, options.precision)
    onnx_file.write(translated, path)


def require_finite(found: Sequence[np.ndarray], precision: str) -> None:
    """Raise EnvironmentProblem for NaN and infinity among boxes, scores and labels of a file in some precision."""
    if not all(np.isfinite(x).all() for x in found):
        raise EnvironmentProblem(
            f"In {precision}, this detector predicts NaN or infinity, so nothing was written: export it in fp32."
        )
