"""From a detector to one graph by `torch.export`, and the proof that the graph's file computes the same."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from align_detr.errors import EnvironmentProblem
from align_detr.export.metadata import INPUTS
from align_detr.export.module import ExportedDetector
from align_detr.export.options import ExportOptions

Run = Callable[[Tensor, Tensor], Sequence[np.ndarray]]

# sizes of a dynamic graph's example, with several of Swin-L's windows in each stage, as PyTorch asks of a single window
# whether it is one and keeps the answer; and of its check, odd
EXAMPLE, SECOND = (416, 544), (187, 317)
PIXELS, SCORE = 0.05, 1e-4  # greatest differences of boxes and scores between a float32 graph and its detector
ALIKE = 0.95  # share of the detections that the check wants to find again: equal scores leave their order open


def trace(module: ExportedDetector, options: ExportOptions) -> ExportedProgram:
    """Return the graph of a detector, with the dimensions of the `options` that are free.

    Raise EnvironmentProblem, with the first line of PyTorch's reason, if the exporter cannot.
    """
    free: dict[str, dict[int, Any]] = {name: {} for name in INPUTS}
    if options.batch is None:
        free["images"][0] = free["sizes"][0] = Dim.DYNAMIC  # named dimensions refuse harmless bounds
    if options.size is None:
        free["images"].update({2: Dim.DYNAMIC, 3: Dim.DYNAMIC})
    try:
        with torch.no_grad(), quiet():
            shapes = free if any(free.values()) else None
            program = torch.export.export(module, example(options), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # PyTorch raises errors of many kinds
        where = "with free sizes: give size, such as 800x1333" if any(free.values()) else "into one graph"
        kind = type(module.model).__name__
        raise EnvironmentProblem(
            f"PyTorch {torch.__version__} cannot export this {kind} {where} ({first_line(error)})."
        ) from error
    for node in program.graph.nodes:  # a file would name folders of the machine that wrote it
        node.meta.pop("stack_trace", None)
    return program


def example(options: ExportOptions, *, second: bool = False) -> tuple[Tensor, Tensor]:
    """Return images and sizes of the graph's shapes: noise, with `second` of another batch and size where these are
    free, with padding.
    """
    batch = options.batch or (3 if second else 2)
    height, width = options.size or (SECOND if second else EXAMPLE)
    generator = torch.Generator().manual_seed(int(second))
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[height, width]] * batch)
    if second:
        sizes[0] = torch.tensor([height - height // 4, width])
        sizes[-1, 1] -= width // 3
    return (images.float() / 64 - 2 if options.normalised else images), sizes


def check(module: ExportedDetector, run: Run, options: ExportOptions, *, pixels: float, score: float) -> None:
    """Compare what a file's `run` finds with the detector, in a second batch and size where these are free, with
    padding. `pixels` and `score` are the greatest differences of boxes and scores.

    An exporter can freeze a size without a word. Raise EnvironmentProblem if the file finds something else.
    """
    for second in (False, True):
        images, sizes = example(options, second=second)
        with torch.no_grad():
            expected = [x.numpy() for x in module(images, sizes)]
        shape = "x".join(map(str, images.shape))
        try:
            found = run(images, sizes)
        except Exception as error:  # runtimes raise errors of many kinds
            raise EnvironmentProblem(
                f"The exported graph does not run on images of {shape} ({first_line(error)}): export a fixed size."
            ) from error
        share = min(shares_alike(found, expected, pixels=pixels, score=score))
        if share < ALIKE:
            raise EnvironmentProblem(
                f"The exported graph finds only {share:.0%} of the detector's detections in images of {shape}, so "
                "nothing was written: export a fixed size, or in fp32."
            )


def shares_alike(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], *, pixels: float, score: float
) -> list[float]:
    """Return per image the share of the expected detections that are found: of their class, with a score and sides
    that differ by less than `score` and `pixels`. Equal scores may stand in any order.
    """
    shares = []
    for boxes, scores, labels, *others in zip(*found, *expected, strict=True):
        other_boxes, other_scores, other_labels = others
        alike = labels == other_labels[:, None]
        alike &= np.abs(scores - other_scores[:, None]) < score
        alike &= np.abs(boxes - other_boxes[:, None]).max(-1) < pixels
        shares.append(float(alike.any(1).mean()))
    return shares


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings, which are about PyTorch's own code, from the user."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [x.level for x in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def first_line(error: Exception) -> str:
    """Return the class of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.')}" if lines else type(error).__name__
