"""Transforms by torch give detectron2's pixels and boxes; what torch does not know takes detectron2's way."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform, HFlipTransform, VFlipTransform
from PIL import Image

from align_detr.data import DetrMapper
from align_detr.data.fast_transforms import FastInput, apply_to_image

HEIGHT, WIDTH = 60, 90
BILINEAR, BICUBIC, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST


def photo(channels: int = 3) -> np.ndarray:
    """Return coarse and fine structure, (60, 90, channels) uint8."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (6, 9, channels)).repeat(10, axis=0).repeat(10, axis=1)
    return (coarse + draw.integers(-40, 41, coarse.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(120, 180), (61, 91), (60, 90), (41, 33), (7, 200), (1, 1)])
@pytest.mark.parametrize("interp", [BILINEAR, BICUBIC, NEAREST])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_gives_pillows_pixels(size: tuple[int, int], interp: int, channels: int) -> None:
    transform = T.ResizeTransform(HEIGHT, WIDTH, *size, interp)
    fast, expected = apply_to_image(transform, photo(channels)), transform.apply_image(photo(channels))
    assert fast.shape == expected.shape == (*size, channels) and fast.dtype == np.uint8 and fast.flags.c_contiguous
    assert np.abs(fast.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "transform",
    [
        HFlipTransform(WIDTH),
        VFlipTransform(HEIGHT),
        CropTransform(20, 10, 40, 30),
        T.TransformList([HFlipTransform(WIDTH), VFlipTransform(HEIGHT), CropTransform(3, 4, 50, 40)]),
    ],
    ids=["horizontal flip", "vertical flip", "crop", "list"],
)
def test_transforms_that_move_pixels_give_detectron2s(transform: T.Transform) -> None:
    image = photo()
    assert np.array_equal(apply_to_image(transform, image), transform.apply_image(image))
    assert np.array_equal(image, photo()), "the input stays as it is"


@pytest.mark.parametrize("view", ["read-only", "reversed", "cropped"])
def test_arrays_that_torch_cannot_view_are_resized_too(view: str) -> None:
    image = photo()
    if view == "read-only":
        image.flags.writeable = False
    else:
        image = image[:, ::-1, ::-1] if view == "reversed" else image[3:50, 7:80]
    transform = T.ResizeTransform(*image.shape[:2], 75, 85)
    expected = transform.apply_image(np.ascontiguousarray(image)).astype(int)
    assert np.abs(apply_to_image(transform, image) - expected).max() <= 1


class Negative(T.Transform):
    """A user's transform: pixels only."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return 255 - img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


class CentredResize(T.ResizeTransform):
    """A user's subclass, which does something else than resizing."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        return np.full((self.new_h, self.new_w, 3), 7, dtype=np.uint8)


def test_transforms_of_users_apply_themselves() -> None:
    seen = FastInput(photo())
    T.AugmentationList([Negative(), CentredResize(HEIGHT, WIDTH, 4, 5), T.RandomBrightness(2, 2)])(seen)
    assert seen.image.shape == (4, 5, 3) and (seen.image == 14).all()
    floats = photo().astype(np.float32)
    resize = T.ResizeTransform(HEIGHT, WIDTH, 30, 45)
    assert np.array_equal(apply_to_image(resize, floats), resize.apply_image(floats))


def recipe(crop: bool) -> list[T.Augmentation]:
    resize = T.ResizeShortestEdge([48, 64, 80], max_size=133, sample_style="choice")
    before = [T.ResizeShortestEdge([40, 50, 60], sample_style="choice"), T.RandomCrop("absolute_range", (38, 60))]
    return [T.RandomFlip(), *(before if crop else ()), resize]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("crop", [False, True])
def test_the_mapper_gives_detectron2s_sizes_boxes_and_pixels_from_the_same_seed(
    crop: bool, suffix: str, tmp_path: Path
) -> None:
    Image.fromarray(photo()).save(tmp_path / f"photo.{suffix}")
    boxes = [[0.0, 0.0, 90.0, 60.0], [10.5, 20.25, 30.0, 7.0], [70.0, 2.0, 19.0, 57.0]]
    record = {
        "file_name": str(tmp_path / f"photo.{suffix}"),
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [{"bbox": b, "bbox_mode": BoxMode.XYWH_ABS, "category_id": k} for k, b in enumerate(boxes)],
    }
    ours = DetrMapper(augmentations=recipe(crop), is_train=True)
    theirs = DatasetMapper(True, augmentations=recipe(crop), image_format="RGB")
    sizes = set()
    for seed in range(12):
        results = []
        for mapper in (ours, theirs):
            np.random.seed(seed)
            results.append(mapper(record))
        fast, expected = results
        assert fast["image"].shape == expected["image"].shape
        assert fast["instances"].gt_classes.tolist() == expected["instances"].gt_classes.tolist()
        assert np.allclose(
            fast["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor, atol=1e-3
        )  # detectron2 computes some corners in float32
        assert (fast["image"].int() - expected["image"].int()).abs().float().mean() < 0.1
        sizes.add(tuple(fast["image"].shape))
    assert len(sizes) > 2, "the seeds have drawn several sizes"
