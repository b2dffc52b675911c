"""Crops of photos: the boxes lie where they belong, and photos that cannot be read are counted."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align_detr.errors import DatasetError
from align_detr.report.gallery import Case, Drawn, add_photos, duplicate_cases, misaligned_cases

BOX = [100.0, 60.0, 40.0, 20.0]


def case_of(*boxes: list[float], file_name: str = "photo.png") -> Case:
    return Case("cell", file_name, [Drawn("object", box) for box in boxes], heads=(), note="")


def save_photo(path: Path, size: tuple[int, int] = (640, 480), exif: int = 1) -> None:
    """Black but for white inside of BOX."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[60:80, 100:140] = 255
    image = Image.fromarray(pixels)
    if exif == 6:  # stored turned to the left, shown turned to the right
        image = image.transpose(Image.Transpose.ROTATE_90)
    tags = Image.Exif()
    tags[0x0112] = exif
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=tags)


def test_a_window_surrounds_its_boxes() -> None:
    """40 x 20 with 30 % on each side is 64 x 32; the least height of 48 makes it 64 x 48, centred at (120, 70)."""
    assert case_of(BOX).window == (88.0, 46.0, 64.0, 48.0)
    x, y, width, height = case_of([0, 0, 10, 10], [300, 0, 10, 400]).window
    assert width / height == pytest.approx(4 / 3) and (width - 310, height - 400) >= (0.6 * 310, 0.6 * 400)
    assert x + width / 2 == 155 and y + height / 2 == 200


@pytest.mark.parametrize("exif", [1, 6])
def test_a_crop_shows_what_the_box_surrounds(tmp_path: Path, exif: int) -> None:
    """Also of a photo that is shown turned, in whose shown pixels boxes are."""
    save_photo(tmp_path / "photo.png", exif=exif)
    case = case_of(BOX)
    assert add_photos([case], tmp_path) == []
    assert case.photo is not None and case.place == (88, 46, 64, 48)
    with Image.open(BytesIO(base64.b64decode(case.data_uri().partition(",")[2]))) as crop:
        pixels = np.asarray(crop.convert("L"))
    assert pixels.shape == (48, 64)
    assert pixels[16:32, 14:50].min() > 200 and pixels[:12].max() < 60 and pixels[:, :10].max() < 60


def test_a_window_at_the_edge_moves_into_the_image(tmp_path: Path) -> None:
    save_photo(tmp_path / "photo.png")
    case = case_of([0.0, 460.0, 20.0, 20.0])
    add_photos([case], tmp_path)
    assert case.window == (0.0, 432.0, 64.0, 48.0) == case.place


def test_an_image_smaller_than_its_window_is_centred(tmp_path: Path) -> None:
    Image.new("I;16", (32, 24), 700).save(tmp_path / "photo.png")
    case = case_of([4.0, 4.0, 8.0, 8.0])
    add_photos([case], tmp_path)
    assert case.window == (-16.0, -12.0, 64.0, 48.0) and case.place == (0, 0, 32, 24)
    assert case.data_uri().startswith("data:image/jpeg;base64,")


def test_photos_are_found_by_the_last_part_of_their_names(tmp_path: Path) -> None:
    save_photo(tmp_path / "photo.png")
    case = case_of(BOX, file_name="elsewhere/val/photo.png")
    assert add_photos([case], tmp_path) == [] and case.photo is not None


def test_unreadable_photos_are_counted(tmp_path: Path) -> None:
    save_photo(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    cases = [case_of(BOX), case_of(BOX, file_name="absent.png"), case_of(BOX, file_name="broken.png")]
    (sentence,) = add_photos(cases, tmp_path)
    assert sentence == (
        "2 photos could not be read, such as absent.png (No such file or directory): their boxes stand alone."
    )
    with pytest.raises(DatasetError, match="No photo of the gallery can be read .* absent.png"):
        add_photos(cases[1:], tmp_path)
    with pytest.raises(DatasetError, match="gone of --images does not exist: name the folder of the photos"):
        add_photos(cases, tmp_path / "gone")


def test_an_image_without_a_file_name_is_named_as_such(tmp_path: Path) -> None:
    save_photo(tmp_path / "photo.png")
    assert add_photos([case_of(BOX), case_of(BOX, file_name="")], tmp_path) == [
        "1 photo could not be read, such as one (its image has no file_name in the annotations): their boxes stand "
        "alone."
    ]


def test_the_most_confident_box_lies_on_top() -> None:
    entry = {"class": "cell", "file_name": "a.png", "object": BOX, "boxes": [BOX, BOX, BOX], "scores": [0.5, 0.9, 0.7]}
    (case,) = duplicate_cases([entry])
    assert [(x.name, *x.facts) for x in case.listed] == [
        ("again (2)", "0.50"),
        ("again (1)", "0.70"),
        ("first", "0.90"),
    ]
    found = {"box": BOX, "score": 0.125, "iou": 0.9, "rank": 12}
    (case,) = misaligned_cases([{**entry, "best": found, "confident": {**found, "rank": 1}, "gap": 0.4}])
    assert [x.kind for x in case.boxes] == ["object", "best", "confident"]
    assert case.description == (
        "cell in a.png, gap 0.40; best-regressed IoU 0.90, score 0.12, rank 12; most confident IoU 0.90, score 0.12, "
        "rank 1"
    )
