"""`OnnxDetector` on a file made by hand, whose scores are mean colours and whose boxes are parts of the image."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from align_detr import Detector, OnnxDetector
from align_detr.cli.main import main
from align_detr.errors import ConfigError, DatasetError, EnvironmentProblem, NonFinitePrediction
from support.onnx_file import described, write_onnx

onnx = pytest.importorskip("onnx", reason="needs onnx, which writes the file")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs the file")

COLOR = (51, 0, 204)  # a fifth of red, four fifths of blue


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="module")
def detector(file: Path) -> OnnxDetector:
    return OnnxDetector(file, threads=1)


def test_boxes_are_in_the_images_pixels_best_first(detector: OnnxDetector) -> None:
    """16x12 is seen as 8x11 (short edge 8, 10.67 rounded); blue scores highest."""
    found = detector.predict(Image.new("RGB", (16, 12), COLOR))
    assert found.boxes.tolist() == [[0, 0, 8, 6], [0, 0, 16, 12]] and found.image_size == (12, 16)
    assert found.scores.tolist() == pytest.approx([0.8, 0.2]) and found.pred_classes.tolist() == [1, 0]
    assert [x.dtype for x in (found.boxes, found.scores, found.pred_classes)] == [np.float32, np.float32, np.int64]
    assert found.labels == ["blue", "red"] and found.class_names == detector.class_names == ["red", "blue"]
    assert found.file_name is None and found.frame is None and len(found) == 2
    assert [x["category_id"] for x in found.to_coco(5)] == [9, 7]
    assert found.to_coco(5)[0]["bbox"] == [0, 0, 8, 6]
    assert found[found.scores > 0.5].labels == ["blue"] == found[0].labels == found[:1].labels
    assert detector.predict(Image.new("RGB", (16, 12), COLOR), threshold=0.5).labels == ["blue"]
    assert detector.predict(Image.new("RGB", (16, 12), COLOR), top_k=1).labels == ["blue"]


def test_every_form_of_an_image_is_taken(detector: OnnxDetector, tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 12), COLOR)
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    content = (tmp_path / "a.png").read_bytes()
    forms = [str(tmp_path / "a.png"), tmp_path / "a.png", content, image, pixels, pixels / 255]
    forms.append(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
    with (tmp_path / "a.png").open("rb") as opened:
        forms.append(opened)
        all_found = detector.predict(forms, batch_size=3)
    assert [x.scores.tolist() for x in all_found] == [pytest.approx([0.8, 0.2])] * len(forms)
    assert detector.predict(pixels[..., ::-1], channels="BGR").labels == ["blue", "red"]
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert detector.predict(tmp_path / "turned.png").image_size == (16, 12)
    deep = np.full((12, 16), 819, np.uint16)  # a fifth of 4095
    assert detector.predict(deep, white_level=4095).scores.tolist() == pytest.approx([0.2, 0.2])
    with pytest.raises(ConfigError, match="white_level is 0, but must be a positive number"):
        detector.predict(deep, white_level=0)


def test_a_batch_finds_what_single_images_find(detector: OnnxDetector) -> None:
    """The sizes differ; the order stays."""
    sizes = [(16, 12), (12, 16), (40, 9), (16, 12)]
    images = [Image.new("RGB", size, (50 * k, 0, 9)) for k, size in enumerate(sizes)]
    together, alone = detector.predict(images, batch_size=4), [detector.predict(x) for x in images]
    assert [(x.boxes.tolist(), x.scores.tolist()) for x in together] == [
        (x.boxes.tolist(), x.scores.tolist()) for x in alone
    ]


def test_a_fixed_size_and_batch(tmp_path: Path) -> None:
    """60x80 is 24x32 of the file's 32x32, so that a quarter of it is black; 3 images are two passes of 2."""
    path = write_onnx(tmp_path / "a.onnx", described(size=[32, 32], batch=2))
    found = OnnxDetector(path, providers=["CPUExecutionProvider"]).predict([Image.new("RGB", (80, 60), COLOR)] * 3)
    assert [x.boxes.tolist() for x in found] == [[[0, 0, 40, 30], [0, 0, 80, 60]]] * 3
    assert found[2].scores.tolist() == pytest.approx([0.8 * 0.75, 0.2 * 0.75])


def test_a_file_with_a_fixed_batch_runs_in_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images are three passes of two, whatever number is asked for."""
    detector = OnnxDetector(write_onnx(tmp_path / "a.onnx", described(batch=2)), threads=1)
    run, shapes = detector._session.run, []
    monkeypatch.setattr(
        detector._session, "run", lambda inputs: shapes.append(inputs["images"].shape[0]) or run(inputs)
    )
    images = [Image.new("RGB", (8, 8), (50 * k, 0, 9)) for k in range(5)]
    for batch_size in (1, 3):
        found = detector.predict(images, batch_size=batch_size)
        assert [x[x.pred_classes == 0].scores.tolist() for x in found] == [
            pytest.approx([k * 50 / 255]) for k in range(5)
        ]
    assert shapes == [2] * 6


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A mean colour over 0; a file in half precision may be finite in another."""
    for precision, remedy in {"fp32": "from another checkpoint", "fp16": "the detector in fp32"}.items():
        path = write_onnx(tmp_path / "a.onnx", described(precision=precision))
        model = onnx.load(str(path))
        (white,) = (x for x in model.graph.initializer if x.name == "white")
        white.float_data[0] = 0.0
        onnx.save(model, str(path))
        with pytest.raises(NonFinitePrediction, match=f"predicts NaN or infinity: export (it )?{remedy}"):
            OnnxDetector(path, threads=1).predict(Image.new("RGB", (8, 8), COLOR))


def test_a_normalised_file_in_bgr(tmp_path: Path) -> None:
    """(204 - 100) / 50 of blue, which is the first channel, over 255."""
    path = write_onnx(tmp_path / "a.onnx", described(input="normalised", channels="BGR"))
    found = OnnxDetector(path).predict(Image.new("RGB", (8, 8), COLOR))
    assert found.scores.tolist() == pytest.approx([104 / 50 / 255, (51 - 120) / 60 / 255])


def test_images_stream_and_unreadable_ones_are_left_out(detector: OnnxDetector, tmp_path: Path) -> None:
    """No more than a batch is read ahead."""
    read = []

    def images():
        for k in range(5):
            read.append(k)
            yield np.full((8, 8, 3), k, np.uint8)

    found = detector.stream(images(), batch_size=2)
    assert read == [] and next(found).image_size == (8, 8) and read == [0, 1]
    assert len(list(found)) == 4
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png")
    faults: list[DatasetError] = []
    assert [x.file_name for x in detector.stream(tmp_path, on_error=faults.append)] == [str(tmp_path / "a.png")]
    assert len(faults) == 1 and "broken.jpg cannot be read" in str(faults[0])
    with pytest.raises(DatasetError, match="broken.jpg cannot be read"):
        detector.predict(tmp_path)


def test_the_command_draws_and_lists_what_a_file_finds(file: Path, tmp_path: Path, capsys) -> None:
    Image.new("RGB", (160, 120), COLOR).save(tmp_path / "a.png")
    out = tmp_path / "found"
    weights = ["--weights", str(file), "--out", str(out)]
    assert main(["predict", str(tmp_path / "a.png"), *weights, "--json", "--csv"]) == 0
    assert "1 images; 1 detections that score at least 0.3: 1 blue." in capsys.readouterr().out
    content = json.loads((out / "predictions.json").read_text())
    assert content["categories"] == [{"id": 7, "name": "red"}, {"id": 9, "name": "blue"}]
    assert [x["bbox"] for x in content["annotations"]] == [[0, 0, 80, 60], [0, 0, 160, 120]]
    with (out / "predictions.csv").open() as rows:
        assert [(x["class"], x["x1"]) for x in csv.DictReader(rows)] == [("blue", "80.00"), ("red", "160.00")]
    with Image.open(out / "a.png") as drawn:
        assert drawn.size == (160, 120) and drawn.getpixel((0, 40)) != COLOR
    assert main(["predict", str(tmp_path / "a.png"), *weights[:3], str(tmp_path / "new"), "--flip"]) == 2
    assert "is an exported file, which has no --flip: leave it out" in capsys.readouterr().err


def test_files_that_cannot_be_used(tmp_path: Path, detector: OnnxDetector) -> None:
    def refuses(path: Path, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            OnnxDetector(path)

    refuses(tmp_path / "absent.onnx", "absent.onnx does not exist: write one with align-detr export")
    (tmp_path / "text.onnx").write_text("hello")
    refuses(tmp_path / "text.onnx", "text.onnx cannot be loaded as an ONNX file .*export the detector again")
    refuses(write_onnx(tmp_path / "other.onnx", {}), "but none that this library has exported")
    other = write_onnx(tmp_path / "names.onnx", outputs=("boxes", "scores", "kinds"))
    refuses(other, "outputs boxes, scores, kinds in place of images, sizes and boxes, scores, labels")
    with pytest.raises(ConfigError, match="other.onnx is an exported file, which predicts alone: use align_detr.OnnxD"):
        Detector(weights=tmp_path / "other.onnx")
    (tmp_path / "program.pt2").touch()
    with pytest.raises(ConfigError, match="program.pt2 is an exported program, which PyTorch runs"):
        Detector(weights=tmp_path / "program.pt2")
    few = OnnxDetector(write_onnx(tmp_path / "few.onnx", described(class_names=["red"], category_ids=None)))
    with pytest.raises(ConfigError, match="predicts a class outside of its 1 class names"):
        few.predict(Image.new("RGB", (8, 8)))
    with pytest.raises(ConfigError, match="top_k is 3, but the model gives at most 2"):
        detector.predict(Image.new("RGB", (8, 8)), top_k=3)


def test_weights_outside_of_the_files_folder_are_refused(tmp_path: Path) -> None:
    """A file can come from anyone, and must not read what lies elsewhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    np.array([255], np.float32).tofile(tmp_path / "secret.bin")
    model = onnx.load(str(write_onnx(folder / "a.onnx")))
    (white,) = (x for x in model.graph.initializer if x.name == "white")
    white.ClearField("float_data")
    white.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../secret.bin", "offset": "0", "length": "4"}.items():
        entry = white.external_data.add()
        entry.key, entry.value = key, value
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="cannot be loaded as an ONNX file"):
        OnnxDetector(folder / "a.onnx")


def test_providers_and_threads_are_checked(file: Path) -> None:
    with pytest.raises(ConfigError, match="providers names 'Cuda', but this onnxruntime has .*CPUExecutionProvider"):
        OnnxDetector(file, providers=["Cuda"])
    with pytest.raises(ConfigError, match="providers is empty"):
        OnnxDetector(file, providers=[])
    with pytest.raises(ConfigError, match="threads is 0, but must be a whole number of at least 1"):
        OnnxDetector(file, threads=0)


def test_without_onnxruntime_one_sentence_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentProblem, match="ONNX files are run by onnxruntime, .*: pip install onnxruntime"):
        OnnxDetector(file)
