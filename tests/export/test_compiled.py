"""Compiled files: PyTorch's ahead-of-time compiler makes machine code that finds what the detector finds.

A compiler takes half a minute for the smallest detector and minutes for a small DETR: it runs where
ALIGN_DETR_COMPILER is inductor.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from align_detr.cli.main import main
from align_detr.errors import EnvironmentProblem
from align_detr.export.export import export
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.options import ExportOptions, require_compiler
from align_detr.inference.classes import Classes
from align_detr.inference.views import TestView
from support.compiling import BACKEND
from support.detectors import deformable_detector
from support.subject import subject

by_compiler = pytest.mark.skipif(BACKEND != "inductor", reason="takes minutes: set ALIGN_DETR_COMPILER=inductor")


@pytest.fixture
def compiler() -> None:
    """Skip the test where PyTorch cannot compile ahead of time."""
    try:
        require_compiler()
    except EnvironmentProblem as error:
        pytest.skip(str(error))


class Stripes(nn.Module):
    """A backbone whose map is the mean of each column."""

    size_divisibility = 8

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, W) of images (B, 3, H, W)."""
        return x.mean((1, 2))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return nothing, as it has no maps."""
        return {}


class Brightest(nn.Module):
    """A detector of the three brightest columns of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Stripes()
        self.register_buffer("pixel_mean", torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 50.0))

    def detect_padded(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a box of one pixel's width and the image's height per column, its brightness as score."""
        scores, column = self.backbone(images).sigmoid().topk(3, dim=1)
        left, height = column.float(), sizes[:, :1].float().expand(-1, 3)
        return torch.stack([left, torch.zeros_like(left), left + 1, height], dim=-1), scores, torch.zeros_like(column)


def write(path: Path, model: nn.Module, size: tuple[int, int] | None, batch: int | None) -> Any:
    """Compile a detector and return it as a function, with its description."""
    classes = Classes([str(k) for k in range(getattr(model, "num_classes", 1))])
    export(path, "compiled", ExportOptions(size, batch), model=model, classes=classes, view=TestView())
    loaded = torch._inductor.aoti_load_package(str(path))
    return loaded, json.loads(loaded.get_metadata()["align_detr"])


@pytest.mark.usefixtures("compiler")
@by_compiler
@torch.no_grad()
def test_machine_code_finds_what_the_detector_finds(tmp_path: Path) -> None:
    """In two sizes and batches. Columns 3, 9 and 11 of the second image are white, grey and dark; the rest is black."""
    found, described = write(tmp_path / "a.pt2", Brightest().eval(), None, None)
    assert (described["architecture"], described["size"], described["size_multiple"]) == ("Brightest", None, 8)
    images = torch.zeros(2, 3, 40, 24, dtype=torch.uint8)
    images[1, :, :, 3], images[1, :, :, 9], images[1, :, :, 11] = 255, 128, 64
    boxes, scores, labels = found(images, torch.tensor([[40, 24], [40, 24]]))
    assert boxes[1].tolist() == [[3, 0, 4, 40], [9, 0, 10, 40], [11, 0, 12, 40]] and not labels.any()
    assert scores[1].tolist() == pytest.approx(torch.tensor([2.9, 0.36, -0.92]).sigmoid().tolist())
    assert found(images[:1, :, :16], torch.tensor([[16, 24]]))[0].shape == (1, 3, 4)


@pytest.mark.usefixtures("compiler")
@by_compiler
@pytest.mark.parametrize("name", ["detr", "deformable"])
@torch.no_grad()
def test_compiled_detectors_find_the_same(name: str, tmp_path: Path) -> None:
    """A batch of three padded images in a free batch, boxes within 0.05 pixels and scores within 1e-4."""
    model = (subject("detr/detr_r50_500ep.py").model if name == "detr" else deformable_detector("two_stage")).eval()
    found, _ = write(tmp_path / "a.pt2", model, (64, 96), None)
    images = torch.randint(256, (3, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    sizes = torch.tensor([[64, 96], [40, 96], [64, 50]])
    expected = ExportedDetector(detection_copy(model)).eval()(images, sizes)
    for mine, theirs, limit in zip(found(images, sizes), expected, (0.05, 1e-4, 0), strict=True):
        torch.testing.assert_close(mine, theirs, atol=limit, rtol=0)


def test_without_a_compiler_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the detector is built."""

    def absent() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    assert main(["export", "digits", "--format", "compiled", "--out", str(tmp_path / "a.pt2")]) == 2
    assert "needs a C++ compiler, and PyTorch finds none: install g++, name another" in capsys.readouterr().err
