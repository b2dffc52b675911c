"""Windows of resized images: those of ordinary images as the whole has them, those of thin ones without the whole."""

import pytest
import torch
import torch.nn.functional as F

from align_detr.data.windows import window_of_resized


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def of_whole(image: torch.Tensor, size: tuple[int, int], top: int, left: int, height: int, width: int) -> torch.Tensor:
    whole = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return whole[:, top : top + height, left : left + width]


@pytest.mark.parametrize(
    ("source", "size", "window"),
    [
        ((48, 64), (100, 133), (0, 33, 100, 100)),
        ((48, 64), (31, 41), (3, 0, 20, 41)),
        ((480, 640), (200, 267), (9, 50, 20, 30)),  # 89 windows, but smaller than the image
        ((20, 100), (60, 300), (0, 111, 60, 30)),
    ],
)
def test_ordinary_images_as_the_whole_has_them(source, size, window) -> None:
    image = noise(*source)
    for each in (image, image.permute(1, 2, 0).contiguous().permute(2, 0, 1)):  # a mapper gives the latter
        assert torch.equal(window_of_resized(each, size, *window), of_whole(each, size, *window))


@pytest.mark.parametrize(
    ("source", "size", "window"),
    [
        ((7, 300), (40, 1714), (0, 1000, 40, 60)),
        ((300, 7), (1714, 40), (1654, 0, 60, 40)),
        ((1, 90), (40, 3600), (0, 0, 40, 40)),
        ((60, 900), (61, 915), (20, 400, 30, 30)),
    ],
)
def test_thin_images_up_to_a_level(source, size, window) -> None:
    image = noise(*source)
    found = window_of_resized(image, size, *window)
    assert found.dtype == torch.uint8 and found.shape == (3, *window[2:])
    assert (found.int() - of_whole(image, size, *window).int()).abs().max() <= 1
    for kind in (torch.float32, torch.float64):
        exact, expected = (cut(image.to(kind), size, *window) for cut in (window_of_resized, of_whole))
        assert exact.dtype == kind and torch.allclose(exact, expected, atol=2e-2)


def test_a_thin_image_by_hand_without_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enlarged by 4, column c lies at (c + 0.5) / 4 - 0.5 in the row of levels 0, 10, 20, ...: columns 8 to 11 at
    1.625, 1.875, 2.125, 2.375, which are the levels 16.25, 18.75, 21.25, 23.75.
    """
    monkeypatch.delattr(F, "interpolate")
    row = torch.arange(0, 250, 10, dtype=torch.uint8).expand(3, 1, 25)
    found = window_of_resized(row, (4, 100), 0, 8, 4, 4)
    assert found.unique(dim=1).tolist() == [[[16, 19, 21, 24]]] * 3
    upright = window_of_resized(row.transpose(1, 2), (100, 4), 8, 0, 4, 4)
    assert torch.equal(upright, found.transpose(1, 2))
    ends = [window_of_resized(row, (4, 100), 0, left, 4, 4)[0, 0].tolist() for left in (0, 96)]
    assert ends == [[0, 0, 1, 4], [236, 239, 240, 240]]  # -0.375, -0.125, 0.125, 0.375; 23.625, 23.875, beyond 24
    huge = window_of_resized(row, (8_000_000, 200_000_000), 7_000_000, 100_000_000, 5, 5)  # 10**15 pixels
    assert huge.unique().tolist() == [120]
