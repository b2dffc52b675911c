"""Photos decoded by torchvision have Pillow's pixels; all other images, and broken ones, are Pillow's."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align_detr.data.decoding import decode_photo
from align_detr.data.images import read_photo
from align_detr.errors import DatasetError
from align_detr.photos import photo_of

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


def encoded(mode: str = "RGB", kind: str = "jpeg", **options: object) -> bytes:
    """Return noise as an image file."""
    content = BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(content, kind, **options)
    return content.getvalue()


def decode(content: bytes, orientation: int = 1) -> np.ndarray | None:
    return decode_photo(Image.open(BytesIO(content)), BytesIO(content), orientation)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_photos_have_pillows_pixels(progressive: bool, subsampling: int) -> None:
    content = encoded(progressive=progressive, subsampling=subsampling, quality=85)
    decoded = decode(content)
    assert decoded is not None and decoded.flags.c_contiguous and decoded.flags.writeable
    assert np.array_equal(decoded, np.asarray(Image.open(BytesIO(content))))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_are_left_to_pillow(mode: str) -> None:
    assert decode(encoded(mode)) is None


def test_other_formats_and_turned_photos_are_left_to_pillow() -> None:
    assert decode(encoded(kind="png")) is None
    assert decode(encoded(), orientation=6) is None


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_truncated_photo_is_pillows_to_judge(cut: int) -> None:
    assert decode(encoded()[:-cut]) is None


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "jpeg"),
        ("L", "jpeg"),
        ("CMYK", "jpeg"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("P", "png"),
        ("1", "png"),
        ("LA", "png"),
        ("RGB", "webp"),
    ],
)
def test_every_mode_is_read_as_pillow_converts_it(mode: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(mode, kind))
    assert np.array_equal(read_photo(str(path)), photo_of(Image.open(path)))


def test_the_sentence_of_a_truncated_photo_is_that_of_pillow(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded()[:-900])
    with pytest.raises(DatasetError, match=r"a\.jpg cannot be read \(OSError: image file is truncated .*replace"):
        read_photo(str(path))
