"""Exported files: they find what the detector finds, in any batch and size that they allow, and say what they are.

An export takes seconds, so that two graphs are traced and translated, once for all tests; benchmarks/export.py exports
all detectors.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image
from torch import Tensor, nn

from align_detr.cli.main import main
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.export import onnx_file, tracing
from align_detr.export.description import describe
from align_detr.export.export import export
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.onnx_detector import OnnxDetector
from align_detr.export.options import ExportOptions, read_batch, read_size
from align_detr.inference.classes import Classes
from align_detr.inference.running import Options, Runner
from align_detr.inference.sources import pictures
from align_detr.inference.views import TestView
from align_detr.modeling.batching import pad_and_stack
from support.detectors import deformable_detector
from support.paths import PROJECT
from support.subject import subject

onnx = pytest.importorskip("onnx", reason="the extra [export] is optional")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is optional")
pytest.importorskip("onnxscript", reason="the extra [export] is optional")

CLASSES = Classes(["a", "b", "c"], {0: 1, 1: 3, 2: 7})
VIEW = TestView([T.ResizeShortestEdge(64, 96)], "BGR")
FIXED = (64, 96)


def write(path: Path, model: nn.Module, size: tuple[int, int] | None, batch: int | None, **others: Any) -> Path:
    """Export a small detector of images in BGR."""
    options = ExportOptions(size, batch, **others)
    export(path, "onnx" if path.suffix == ".onnx" else "torch", options, model=model, classes=CLASSES, view=VIEW)
    return path


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    """Trace and translate once what tests export of one detector in several forms."""
    graphs: dict[tuple[str, object, ExportOptions], Any] = {}

    def trace(module: ExportedDetector, options: ExportOptions) -> Any:
        key = "program", type(module.model), ExportOptions(options.size, options.batch, options.normalised)
        if key not in graphs:
            graphs[key] = tracing.trace(module, options)
        return graphs[key]

    def translate(program: Any, options: ExportOptions) -> Any:
        key = "onnx", id(program), ExportOptions(None)
        if key not in graphs:
            graphs[key] = translated(program, options).SerializeToString()
        return onnx.load_from_string(graphs[key])

    translated = onnx_file.translate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_detr.export.export.trace", trace)
        patch.setattr(onnx_file, "translate", translate)
        yield


@pytest.fixture(scope="module")
def detr() -> nn.Module:
    return subject("detr/detr_r50_500ep.py").model.eval()


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory, detr: nn.Module) -> Path:
    """DETR with free batch, height and width."""
    return write(tmp_path_factory.mktemp("export") / "free.onnx", detr, None, None)


@pytest.fixture(scope="module")
def deformable() -> nn.Module:
    """A detector with proposals and deformable attention, of one encoder layer."""
    model = deformable_detector("two_stage").eval()
    model.encoder.layers = model.encoder.layers[:1]
    return model


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, deformable: nn.Module) -> Path:
    """It with a fixed size and batch."""
    return write(tmp_path_factory.mktemp("export") / "fixed.onnx", deformable, FIXED, 2)


def run(path: Path, images: Tensor, sizes: Tensor) -> Sequence[np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return session.run(["boxes", "scores", "labels"], {"images": images.numpy(), "sizes": sizes.numpy()})


def batch_of(*sizes: tuple[int, int], padded: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Noise images of sizes, padded, and these sizes."""
    generator = torch.Generator().manual_seed(3)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return pad_and_stack(images, padded), torch.tensor(sizes)


def assert_parity(path: Path, model: nn.Module, images: Tensor, sizes: Tensor) -> None:
    """Boxes within 0.05 pixels and scores within 1e-4 of the detector."""
    with torch.no_grad():
        module = ExportedDetector(detection_copy(model), flip=True).eval()
        expected = [x.numpy() for x in module(images, sizes)]
    found = run(path, images, sizes)
    assert [x.dtype for x in found] == [np.float32, np.float32, np.int64]
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4, rtol=0)
    assert tracing.shares_alike(found, expected, pixels=0.05, score=1e-4) == [1.0] * len(images)


@pytest.mark.parametrize("padded", [(64, 96), (97, 70), (128, 128)])
def test_free_batch_and_size(free: Path, detr: nn.Module, padded: tuple[int, int]) -> None:
    """Batches of one and three images, with padding."""
    height, width = padded
    assert_parity(free, detr, *batch_of(padded, padded=padded))
    assert_parity(free, detr, *batch_of(padded, (height - 20, width), (height, width - 33), padded=padded))


def test_fixed_batch_and_size(fixed: Path, deformable: nn.Module) -> None:
    assert_parity(fixed, deformable, *batch_of(FIXED, (40, 50), padded=FIXED))
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run(fixed, *batch_of(FIXED, FIXED, FIXED, padded=FIXED))


def test_the_file_says_what_it_is(free: Path, fixed: Path, detr: nn.Module) -> None:
    texts = [{x.key: x.value for x in onnx.load(str(path)).metadata_props} for path in (free, fixed)]
    found, of_fixed = (json.loads(text["align_detr"]) for text in texts)
    assert found["class_names"] == ["a", "b", "c"] and found["category_ids"] == [1, 3, 7]
    assert found["architecture"] == "DETR" and found["format"] == 1
    assert (found["size"], found["batch"], found["size_multiple"]) == (None, None, 1)
    assert (of_fixed["size"], of_fixed["batch"]) == ([64, 96], 2)
    assert (found["input"], found["channels"], found["precision"]) == ("uint8", "BGR", "fp32")
    assert found["resize"] == {"short_edge": 64, "max_size": 96}
    assert found["num_detections"] == 12 and of_fixed["num_detections"] == 10
    assert found["pixel_mean"] == pytest.approx(detr.pixel_mean.flatten().tolist())


def test_the_detector_without_torch_finds_the_same(free: Path, detr: nn.Module) -> None:
    """In photos that are seen in their own sizes, in one batch."""
    generator = np.random.default_rng(3)
    photos = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 80), (96, 64), (64, 80))]
    runner = Runner(detr, VIEW, CLASSES)
    theirs = list(runner.stream(pictures(photos), Options(), batch_size=3))
    for found, expected in zip(OnnxDetector(free, threads=1).predict(photos, batch_size=3), theirs, strict=True):
        arrays = [(x.boxes, np.asarray(x.scores), np.asarray(x.pred_classes)) for x in (found, expected)]
        assert len(found) == len(expected) and found.image_size == expected.image_size
        assert tracing.shares_alike(*([x[None] for x in each] for each in arrays), pixels=0.05, score=1e-4) == [1.0]
        assert [x["category_id"] for x in found.to_coco()] == [CLASSES.category_ids[k] for k in found.pred_classes]


def test_only_standard_operators(fixed: Path) -> None:
    """No plugin is needed, and the weights lie in the file."""
    model = onnx.load(str(fixed), load_external_data=False)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [x.domain for x in model.opset_import if x.domain] == [] or not model.functions
    assert all(x.data_location == 0 for x in model.graph.initializer)
    assert {"images", "sizes"} == {x.name for x in model.graph.input}


def test_int8(tmp_path: Path, detr: nn.Module) -> None:
    """Calibrated with photos; convolutions have 8-bit weights, the heads do not."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(generator.integers(0, 256, (48, 60, 3), np.uint8)).save(folder / f"{i}.png")
    path = write(tmp_path / "int8.onnx", detr, None, None, int8=folder)
    model = onnx.load(str(path))
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 5
    text = {x.key: x.value for x in model.metadata_props}["align_detr"]
    assert json.loads(text)["precision"] == "int8"
    assert 0 < difference_of_scores(path, detr) < 0.1


def test_a_file_names_no_folder_of_the_machine(free: Path, tmp_path: Path, detr: nn.Module) -> None:
    """The exporter would note the line of the source of each operator."""
    program = write(tmp_path / "detr.pt2", detr, None, None)
    for path in (free, program):
        assert str(PROJECT).encode() not in path.read_bytes()
    assert not any(node.metadata_props for node in onnx.load(str(free)).graph.node)


def test_half_precision(tmp_path: Path, detr: nn.Module, free: Path) -> None:
    """The weights take half as much, inputs and outputs keep their types."""
    path = write(tmp_path / "half.onnx", detr, None, None, fp16=True)
    halves, floats = (sum(x.ByteSize() for x in onnx.load(str(file)).graph.initializer) for file in (path, free))
    assert halves < 0.6 * floats
    text = {x.key: x.value for x in onnx.load(str(path)).metadata_props}["align_detr"]
    assert json.loads(text)["precision"] == "fp16"
    assert 0 < difference_of_scores(path, detr) < 0.01


def difference_of_scores(path: Path, model: nn.Module) -> float:
    """Return the greatest difference between the scores of a file and of its detector."""
    images, sizes = batch_of(FIXED, padded=FIXED)
    with torch.no_grad():
        expected = ExportedDetector(detection_copy(model), flip=True).eval()(images, sizes)[1].numpy()
    return float(np.abs(run(path, images, sizes)[1] - expected).max())


def test_a_file_of_normalised_images_says_so(detr: nn.Module) -> None:
    others = {"size": None, "batch": None, "num_detections": 12, "precision": "fp32"}
    assert describe(detr, CLASSES, VIEW, normalised=True, **others)["input"] == "normalised"


@torch.no_grad()
def test_a_file_that_finds_something_else_is_not_written(detr: nn.Module) -> None:
    """An exporter may freeze the size of its example; the check in a second size finds it."""
    module, options = ExportedDetector(detection_copy(detr)).eval(), ExportOptions(None, 2)

    def frozen(images: Tensor, sizes: Tensor) -> list[np.ndarray]:
        return [x.numpy() for x in module(*tracing.example(options))]

    with pytest.raises(EnvironmentProblem, match="finds only .* in images of 2x3x187x317, so nothing was written"):
        tracing.check(module, frozen, options, pixels=0.05, score=1e-4)


def test_a_program_of_torch_export(tmp_path: Path, detr: nn.Module) -> None:
    """It loads with PyTorch alone, and has the same description."""
    path = write(tmp_path / "detr.pt2", detr, None, None)
    files = {"align_detr": ""}
    loaded = torch.export.load(path, extra_files=files).module()
    images, sizes = batch_of((50, 96), FIXED, (64, 31), padded=FIXED)
    with torch.no_grad():
        found = loaded(images, sizes)
        expected = ExportedDetector(detection_copy(detr), flip=True).eval()(images, sizes)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
    assert json.loads(files["align_detr"])["batch"] is None


@pytest.mark.parametrize(("given", "read"), [("800x1333", (800, 1333)), (640, (640, 640)), ([64, 96], (64, 96))])
def test_sizes(given: object, read: tuple[int, int]) -> None:
    assert read_size(given) == read
    assert read_size("dynamic") is None and read_batch("dynamic") is None and read_batch("4") == 4


@pytest.mark.parametrize("size", ["800*1333", "x", [1, 2, 3], "8x9", 1.5])
def test_wrong_sizes(size: object) -> None:
    with pytest.raises(ConfigError, match="size is"):
        read_size(size)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong usage is one sentence; a missing package says what to install."""
    assert main(["export", "--out", "x.onnx"]) == 2
    assert "There is nothing to export" in capsys.readouterr().err
    assert main(["export", "digits", "--out", str(tmp_path / "x.pth")]) == 2
    assert "end it with .onnx" in capsys.readouterr().err
    assert main(["export", "digits", "--out", str(tmp_path / "x.pt2"), "--format", "torch", "--fp16"]) == 2
    assert "fp16 is for ONNX files" in capsys.readouterr().err
    assert main(["export", "digits", "--out", str(tmp_path / "x.onnx"), "--int8", str(tmp_path / "none")]) == 2
    assert "which is no folder: name one with a hundred images" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["export", "digits", "--out", str(tmp_path / "file/x.onnx")]) == 2
    assert "file cannot be written to: name another folder" in capsys.readouterr().err
    monkeypatch.setattr("align_detr.export.options.PACKAGES", ("no_such_package",))
    assert main(["export", "digits", "--out", str(tmp_path / "x.onnx"), "--size", "64"]) == 2
    assert "pip install 'align_detr[export]'" in capsys.readouterr().err
