"""DetrMapper: boxes against arithmetic, colours, sizes of the recipe, and bad image files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform
from omegaconf import ListConfig
from PIL import Image

from align_detr.data import DetrMapper
from align_detr.errors import ConfigError, DatasetError

WIDTH, HEIGHT = 100, 50
COCO = Path(__file__).resolve().parents[2] / "configs" / "common" / "data" / "coco_detr.py"


def annotation(x0: float, y0: float, x1: float, y1: float, category: int = 0, iscrowd: int = 0) -> dict:
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, "iscrowd": iscrowd}


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """Return a record with a 100x50 photo, red on the left and blue on the right, and two boxes."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[:, : WIDTH // 2, 0] = 255
    pixels[:, WIDTH // 2 :, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    annotations = [annotation(10, 5, 30, 45, 3), annotation(60, 10, 90, 20, 7)]
    return {
        "file_name": str(tmp_path / "photo.png"),
        "image_id": 17,
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": annotations,
    }


def boxes_after(record: dict, *augmentations: object) -> list[list[float]]:
    return DetrMapper(augmentations=augmentations, is_train=True)(record)["instances"].gt_boxes.tensor.tolist()


def test_without_augmentation_the_boxes_are_the_annotated_ones(record: dict) -> None:
    mapped = DetrMapper(augmentations=[], is_train=True)(record)
    assert mapped["image"].shape == (3, HEIGHT, WIDTH) and mapped["image"].dtype == torch.uint8
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[10, 5, 30, 45], [60, 10, 90, 20]]
    assert mapped["instances"].gt_boxes.tensor.dtype == torch.float32
    assert mapped["instances"].gt_classes.tolist() == [3, 7]
    assert mapped["instances"].image_size == (HEIGHT, WIDTH)
    assert mapped["image_id"] == 17 and "annotations" not in mapped


def test_boxes_in_corner_format_are_taken_as_they_are(record: dict) -> None:
    record["annotations"] = [{"bbox": [1, 2, 30, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}]
    assert boxes_after(record) == [[1, 2, 30, 40]]


def test_flip_mirrors_image_and_boxes(record: dict) -> None:
    mapped = DetrMapper(augmentations=[T.RandomFlip(prob=1.0)], is_train=True)(record)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[70, 5, 90, 45], [10, 10, 40, 20]]
    assert mapped["image"][:, 0, 0].tolist() == [0, 0, 255]


def test_resize_scales_the_boxes(record: dict) -> None:
    boxes = boxes_after(record, T.ResizeShortestEdge([100, 100], max_size=1333))
    assert boxes == [[20, 10, 60, 90], [120, 20, 180, 40]]


def test_resize_stops_at_the_longest_side(record: dict) -> None:
    mapped = DetrMapper(augmentations=[T.ResizeShortestEdge([100, 100], max_size=150)], is_train=True)(record)
    assert mapped["image"].shape == (3, 75, 150)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[15, 7.5, 45, 67.5], [90, 15, 135, 30]]


def test_crop_shifts_and_cuts_the_boxes_and_removes_what_it_leaves_empty(record: dict) -> None:
    mapped = DetrMapper(augmentations=[CropTransform(20, 10, 40, 30)], is_train=True)(record)
    assert mapped["image"].shape == (3, 30, 40)
    # box 1: x 10..30 -> 0..10, y 5..45 -> 0..30; box 2 starts at x = 60, where the crop ends
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[0, 0, 10, 30]]
    assert mapped["instances"].gt_classes.tolist() == [3]


def test_flip_then_resize_then_crop(record: dict) -> None:
    # flip: [70 5 90 45], [10 10 40 20]; x 2: [140 10 180 90], [20 20 80 40]; crop at (30, 30), 120 x 60
    boxes = boxes_after(record, T.RandomFlip(prob=1.0), T.Resize((100, 200)), CropTransform(30, 30, 120, 60))
    assert boxes == [[110, 0, 120, 60], [0, 0, 50, 10]]


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param([], id="no annotation"),
        pytest.param([annotation(1, 1, 50, 40, iscrowd=1)], id="only a crowd region"),
        pytest.param([annotation(10, 5, 10, 45)], id="box without width"),
        pytest.param([annotation(10, 5, 30, 4)], id="box of negative height"),
        pytest.param([annotation(WIDTH, 5, WIDTH + 20, 45)], id="box outside of the image"),
    ],
)
def test_image_without_objects_is_an_ordinary_one(record: dict, annotations: list[dict]) -> None:
    mapped = DetrMapper(augmentations=[T.RandomFlip(prob=1.0)], is_train=True)(record | {"annotations": annotations})
    assert mapped["image"].shape == (3, HEIGHT, WIDTH)
    assert mapped["instances"].gt_boxes.tensor.shape == (0, 4)
    assert mapped["instances"].gt_classes.shape == (0,) and mapped["instances"].gt_classes.dtype == torch.int64


def test_crowd_regions_are_left_out_beside_objects(record: dict) -> None:
    record["annotations"].insert(0, annotation(0, 0, 99, 49, category=1, iscrowd=1))
    assert DetrMapper(augmentations=[], is_train=True)(record)["instances"].gt_classes.tolist() == [3, 7]


def test_red_stays_red_and_bgr_is_reversed(record: dict) -> None:
    assert DetrMapper(augmentations=[], is_train=True)(record)["image"][:, 0, 0].tolist() == [255, 0, 0]
    bgr = DetrMapper(augmentations=[], is_train=True, image_format="BGR")(record)
    assert bgr["image"][:, 0, 0].tolist() == [0, 0, 255]


def test_grey_image_becomes_rgb(record: dict) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, dtype=np.uint8)).save(record["file_name"])
    assert DetrMapper(augmentations=[], is_train=True)(record)["image"][:, 7, 7].tolist() == [90, 90, 90]


def test_evaluation_keeps_the_original_size_and_drops_annotations(record: dict) -> None:
    mapped = DetrMapper(augmentations=[T.ResizeShortestEdge([100, 100], max_size=1333)], is_train=False)(record)
    assert mapped["image"].shape == (3, 100, 200)
    assert (mapped["height"], mapped["width"]) == (HEIGHT, WIDTH)
    assert "annotations" not in mapped and "instances" not in mapped


def test_height_and_width_are_completed_from_the_file(record: dict) -> None:
    del record["height"], record["width"]
    mapped = DetrMapper(augmentations=[], is_train=False)(record)
    assert (mapped["height"], mapped["width"]) == (HEIGHT, WIDTH)


def test_the_record_stays_as_it_is(record: dict) -> None:
    before = repr(record)
    DetrMapper(augmentations=[T.RandomFlip(prob=1.0)], is_train=True)(record)
    assert repr(record) == before


def test_crop_recipe_is_used_half_of_the_time(record: dict) -> None:
    mapper = DetrMapper(
        augmentations=[T.Resize((8, 8))], augmentations_with_crop=[T.Resize((4, 4))], is_train=True, image_format="RGB"
    )
    np.random.seed(0)
    cropped = sum(mapper(record)["image"].shape[-1] == 4 for _ in range(400))
    assert 160 <= cropped <= 240  # 4 standard deviations of a fair coin


def test_crop_recipe_is_refused_in_evaluation() -> None:
    with pytest.raises(ConfigError, match="dataloader.test.mapper"):
        DetrMapper(augmentations=[], augmentations_with_crop=[], is_train=False)


@pytest.mark.parametrize("size", [(160, 120), (90, 240)])
def test_sizes_of_the_official_recipe(record: dict, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(record["file_name"])
    record |= {"width": size[0], "height": size[1]}
    mapper = instantiate(LazyConfig.load(str(COCO)).dataloader.train.mapper)
    np.random.seed(1)
    shapes = [mapper(record)["image"].shape[1:] for _ in range(16)]
    sides = set(range(480, 801, 32))
    assert all(max(s) <= 1333 and (min(s) in sides or max(s) == 1333) for s in shapes)
    ratios = [s[1] / s[0] / (size[0] / size[1]) for s in shapes]
    plain = sum(abs(r - 1) < 0.01 for r in ratios)
    assert 0 < plain < len(shapes)  # some images were cropped, some were not


def test_evaluation_size_of_the_official_recipe(record: dict) -> None:
    mapper = instantiate(LazyConfig.load(str(COCO)).dataloader).test.mapper
    mapped = instantiate(mapper)(record)
    assert mapped["image"].shape == (3, 667, 1333)  # 100 x 50: 1600 x 800 is too long


def test_lists_of_a_lazy_config_become_plain(record: dict) -> None:
    mapper = instantiate(LazyConfig.load(str(COCO)).dataloader.train.mapper)
    for augmentation in mapper.augmentations.augs + mapper.augmentations_with_crop.augs:
        assert not any(isinstance(value, ListConfig) for value in vars(augmentation).values())


def test_missing_image_file(record: dict) -> None:
    record["file_name"] = record["file_name"].replace("photo", "absent")
    with pytest.raises(DatasetError, match=r"absent\.png .*image 17.*does not exist") as error:
        DetrMapper(augmentations=[], is_train=True)(record)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no image at all", "truncated"], ids=["empty", "text", "truncated"])
def test_broken_image_file(record: dict, content: bytes | str) -> None:
    path = Path(record["file_name"])
    path.write_bytes(path.read_bytes()[:90] if content == "truncated" else content)
    with pytest.raises(DatasetError, match=r"photo\.png .*image 17.*cannot be read.*replace the file") as error:
        DetrMapper(augmentations=[], is_train=False)(record)
    assert "<_io" not in str(error.value) and " object at " not in str(error.value)


def test_size_that_differs_from_the_annotation(record: dict) -> None:
    record["width"] = 99
    with pytest.raises(DatasetError, match=r"photo\.png .*image 17.*100x50 pixels.*says 99x50"):
        DetrMapper(augmentations=[], is_train=True)(record)
