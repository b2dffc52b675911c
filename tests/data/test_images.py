"""Image files that are no ordinary 8-bit photos: scaled or refused, never white."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import instantiate
from PIL import Image

from align_detr.data import DetrMapper
from align_detr.data.images import read_image
from align_detr.errors import DatasetError
from align_detr.lazy_config import load_config


def save(path: Path, pixels: np.ndarray) -> dict:
    """Write grey pixels, and return their record."""
    Image.fromarray(pixels).save(path)
    return {"file_name": str(path), "image_id": 3, "height": pixels.shape[0], "width": pixels.shape[1]}


RAMP = np.array([[0, 257, 257 * 100], [257 * 200, 257 * 254, 65535]])  # 16 bits for 0, 1, 100, 200, 254, 255


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_divided_by_257(suffix: str, tmp_path: Path) -> None:
    image = read_image(save(tmp_path / f"a.{suffix}", RAMP.astype(np.uint16)), "RGB")
    assert image.dtype == np.uint8 and image.shape == (2, 3, 3)
    assert image[..., 0].tolist() == image[..., 2].tolist() == [[0, 1, 100], [200, 254, 255]]


@pytest.mark.parametrize(
    ("pixels", "white"),
    [
        pytest.param((RAMP // 16).astype(np.uint16), 4095, id="12 bits in 16"),
        pytest.param(RAMP.astype(np.int32), 65535, id="32-bit integers"),
        pytest.param((RAMP / 65535).astype(np.float32), 1.0, id="floats"),
    ],
)
def test_white_level_of_other_ranges(pixels: np.ndarray, white: float, tmp_path: Path) -> None:
    mapper = DetrMapper(augmentations=[], is_train=False, white_level=white)
    grey = mapper(save(tmp_path / "a.tif", pixels))["image"][1]
    assert grey.tolist() == [[0, 1, 100], [200, 254, 255]]


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "32-bit integers"), (np.float32, "floats")])
def test_grey_levels_of_unknown_range_are_refused(dtype: type, kind: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"a\.tif .* holds {kind}, of which white is not known: set white_level"):
        read_image(save(tmp_path / "a.tif", RAMP.astype(dtype)), "RGB")


def test_levels_that_are_no_number_are_black(tmp_path: Path) -> None:
    pixels = np.array([[np.nan, 1.0]], dtype=np.float32)
    assert read_image(save(tmp_path / "a.tif", pixels), "RGB", 1.0)[..., 0].tolist() == [[0, 255]]


def test_dark_16_bit_images_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align_detr.photos._told_dark", [])  # no earlier test has logged it
    read_image(save(tmp_path / "dark.png", np.full((2, 2), 4000, dtype=np.uint16)), "RGB")
    read_image(save(tmp_path / "dark.png", np.full((2, 2), 4000, dtype=np.uint16)), "RGB")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "has 16 bits, but no level above 4000, and comes out almost black" in line and "white_level=4095" in line


def turned(path: Path, orientation: int, **size: int) -> dict:
    """Write a photo of 6x4 stored pixels with an orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    return {"file_name": str(path), "image_id": 3, **size}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_turned_photo_is_read_as_it_is_shown(orientation: int, tmp_path: Path) -> None:
    assert read_image(turned(tmp_path / "a.jpg", orientation, width=4, height=6), "RGB").shape == (6, 4, 3)


def test_a_turned_photo_with_the_stored_size_is_refused_with_what_makes_its_boxes_right(tmp_path: Path) -> None:
    record = turned(tmp_path / "a.jpg", 6, width=6, height=4)
    with pytest.raises(DatasetError) as error:
        read_image(record, "RGB")
    for part in ("a.jpg (image 3", "EXIF orientation 6", "4x6 pixels", "says 6x4", "without the tag and export"):
        assert part in str(error.value)


def test_another_size_than_the_turned_one_is_an_ordinary_mismatch(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is 4x6 pixels, but its annotation says 5x6: correct the annotation"):
        read_image(turned(tmp_path / "a.jpg", 6, width=5, height=6), "RGB")


def test_more_pixels_than_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(DatasetError, match=r"a\.png .*more pixels.*PIL\.Image\.MAX_IMAGE_PIXELS = None"):
        read_image(save(tmp_path / "a.png", np.zeros((3, 3), dtype=np.uint8)), "RGB")


def test_white_level_is_set_on_the_command_line() -> None:
    cfg = load_config("detr/detr_r50_500ep.py", ["+dataloader.train.mapper.white_level=4095"])
    assert instantiate(cfg.dataloader.train.mapper).white_level == 4095
