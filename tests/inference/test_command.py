"""`align-detr predict`: a folder and a video to pictures, JSON and CSV."""

import csv
import json
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from align_detr.cli.main import main
from align_detr.detector import Detector
from align_detr.errors import DatasetError
from align_detr.inference.video import frame_rate, frames, video_writer

from .conftest import CLASSES, pixels


@pytest.fixture
def weights(detector: Detector, tmp_path: Path) -> str:
    return str(detector.save(tmp_path / "weights.pth"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_gives_pictures_json_and_csv(
    detector: Detector, weights: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All detections are listed, with what is known of the images; files of one name do not replace each other; the
    broken one is named and counted.
    """
    (photos / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "found"
    arguments = ["--weights", weights, "--device", "cpu", "--batch-size", "2", "--json", "--csv"]
    assert main(["predict", str(photos), str(photos / "a.png"), "--out", str(out), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"align-detr predict: The image file {photos}/broken.jpg cannot be read")
    assert "4 images, 1 not read; " in printed.out and f"The files are in {out}." in printed.out

    names = ["a.png", "b.png", "more/a.png", "a.png"]
    expected = [detector.predict(photos / name) for name in names]
    content = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert content["categories"] == [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    assert [x["file_name"] for x in content["images"]] == [str(photos / name) for name in names]
    assert [x["picture"] for x in content["images"]] == ["a.png", "b.png", "a_2.png", "a_3.png"]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (50, 90)
    results = [x for k, found in enumerate(expected, start=1) for x in found.to_coco(k)]
    keys = ("image_id", "category_id")
    assert [[x[key] for key in keys] for x in content["annotations"]] == [[x[key] for key in keys] for x in results]
    for key in ("bbox", "score"):
        assert np.allclose([x[key] for x in content["annotations"]], [x[key] for x in results], atol=1e-3)
    ours = COCO(str(out / "predictions.json"))  # it is a COCO file, and its annotations are COCO's results
    assert len(ours.loadRes(content["annotations"]).anns) == len(results)

    rows = table(out / "predictions.csv")
    assert [row["file"] for row in rows] == [x.file_name for x in expected for _ in range(len(x))]
    first, box = rows[0], expected[0].pred_boxes.tensor[0].tolist()
    assert first["class"] == expected[0].labels[0] and first["frame"] == ""
    assert float(first["score"]) == pytest.approx(float(expected[0].scores[0]), abs=1e-5)
    assert [float(first[side]) for side in ("x0", "y0", "x1", "y1")] == pytest.approx(box, abs=0.01)
    assert {x.name for x in out.glob("*.png")} == {"a.png", "b.png", "a_2.png", "a_3.png"}

    assert main(["predict", str(photos), "--out", str(out), *arguments]) == 2
    assert f"{out} holds files already: name a new folder" in capsys.readouterr().err


def test_a_threshold_holds_for_all_files(
    detector: Detector, weights: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photos / "a.png"
    limit = f"{float(detector.predict(photo).scores[3]):.4f}"
    options = ["--weights", weights, "--device", "cpu", "--threshold", limit, "--csv", "--no-pictures"]
    assert main(["predict", str(photo), "--out", str(tmp_path / "found"), *options]) == 0
    rows = table(tmp_path / "found" / "predictions.csv")
    assert len(rows) == int((detector.predict(photo).scores >= float(limit)).sum()) < 36
    assert f"1 images; {len(rows)} detections that score at least {limit}: " in capsys.readouterr().out
    assert [x.name for x in (tmp_path / "found").iterdir()] == ["predictions.csv"]


def test_what_cannot_start_leaves_no_folder(
    weights: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL, and a video without the package that reads it."""
    out = tmp_path / "found"
    assert main(["predict", "http://host/a.jpg", "--weights", weights, "--out", str(out)]) == 2
    assert "is a URL, and nothing is fetched here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["predict", str(photos), "clip.mp4", "--weights", weights, "--out", str(out)]) == 2
    assert "Videos are read with PyAV, which cannot be imported" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "quickstart/digits.py"], "has no weights by itself: add --weights FILE"),
        (["--no-pictures"], "--no-pictures alone writes nothing: add --json or --csv"),
        (["--out", "photo.jpg"], "photo.jpg is the name of a file, but pictures and lists go into a folder"),
    ],
)
def test_arguments_that_do_not_go_together(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["predict", str(photos), "--out", str(tmp_path / "found"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "found").exists()


def test_where_nothing_is_written_no_folder_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The detector that comes with the package has a name, as in Python."""
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "found"
    assert main(["predict", str(tmp_path / "broken.jpg"), "--weights", "digits", "--out", str(out)]) == 2
    assert not out.exists() and "The files are in" not in capsys.readouterr().out
    assert main(["weights", "show", "digits"]) == 0
    assert "3200" in capsys.readouterr().out.replace(",", "")


def test_the_commands_are_free_of_warnings_of_dependencies() -> None:
    code = "import sys; from align_detr.cli.main import main; sys.exit(main(['predict', 'a.jpg', '--out', 'b.jpg']))"
    for program in (code, "from align_detr import Detector"):
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "Warning" not in ended.stderr, ended.stderr
    code = code.replace("'b.jpg'", "'new', '--white-level', '0', '--device', 'cpu'")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "white_level is 0.0, but must be" in ended.stderr and "FutureWarning" not in ended.stderr


def test_a_video_gives_a_video_and_its_frames_in_the_lists(detector: Detector, weights: str, tmp_path: Path) -> None:
    """Frames are read one at a time, with odd sides made even; a video that breaks off is named with its frame."""
    pytest.importorskip("av")
    clip = tmp_path / "clip.mp4"
    with video_writer(clip, Fraction(10)) as writer:
        for k in range(4):
            writer.write(pixels(61, 81, seed=k))
    shapes = [frame.shape for frame in frames(clip)]
    assert shapes == [(62, 82, 3)] * 4 and frame_rate(clip) == 10
    stream = detector.predict(clip)
    assert next(stream).frame == 0 and [found.frame for found in stream] == [1, 2, 3]

    out = tmp_path / "found"
    options = ["--weights", weights, "--device", "cpu", "--threshold", "0", "--json", "--csv", "--top-k", "2"]
    assert main(["predict", str(clip), str(clip), "--out", str(out), *options]) == 0
    assert sorted(x.name for x in out.iterdir()) == ["clip.mp4", "clip_2.mp4", "predictions.csv", "predictions.json"]
    assert len(list(frames(out / "clip_2.mp4"))) == 4
    assert [row["frame"] for row in table(out / "predictions.csv")][:8] == list("00112233")
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [x["frame"] for x in images] == [0, 1, 2, 3] * 2 and images[7]["picture"] == "clip_2.mp4"
    with pytest.raises(DatasetError, match=r"broken\.mp4 cannot be read .*: replace the file"):
        (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:200])
        list(frames(tmp_path / "broken.mp4"))
    with pytest.raises(DatasetError, match=r"absent\.mp4 does not exist: correct its path"):
        list(frames(tmp_path / "absent.mp4"))


def test_a_picture_is_drawn_in_its_own_pixels(detector: Detector, weights: str, tmp_path: Path) -> None:
    """A GIF, whose colours are limited, becomes a PNG, with the frame of the best box in it."""
    Image.fromarray(pixels(60, 80)).save(tmp_path / "photo.gif")
    found = detector.predict(tmp_path / "photo.gif")
    threshold = str(float(found.scores[0]) - 1e-4)
    arguments = ["--weights", weights, "--device", "cpu", "--threshold", threshold]
    assert main(["predict", str(tmp_path / "photo.gif"), "--out", str(tmp_path / "found"), *arguments]) == 0
    with Image.open(tmp_path / "found" / "photo.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(found.draw(threshold=float(threshold))))


def test_a_turned_video_is_read_as_it_is_shown(tmp_path: Path) -> None:
    """As a phone's: its track header turns the stored frames clockwise, so that their left half is on top."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with video_writer(path, Fraction(10)) as writer:
        writer.write(np.repeat(np.repeat(np.array([[[255], [0]]], np.uint8), 64, 0), 48, 1).repeat(3, 2))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # behind version, times, track, duration, layer, group, volume
    content[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)
    path.write_bytes(content)
    (frame,) = frames(path)
    assert frame.shape == (96, 64, 3) and frame[:40].mean() > 240 and frame[56:].mean() < 15
