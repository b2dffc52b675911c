"""Masks through the mapper: read from polygons, run-length encodings and pictures, and transformed with the image."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_tools
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image

from align_detr.data import DetrMapper, MaskMapper, build_train_loader, load_dataset, register_panoptic
from align_detr.data.panoptic import as_picture, read_picture
from align_detr.errors import DatasetError
from support.datasets import forgotten

HEIGHT, WIDTH = 6, 10
LEFT, RIGHT = np.zeros((2, HEIGHT, WIDTH), dtype=np.uint8)
LEFT[1:5, 1:4] = 1
RIGHT[0:3, 6:10] = 1


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """Two objects, one as a polygon and one as a run-length encoding, and a crowd region without a mask."""
    Image.fromarray(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)).save(tmp_path / "a.png")
    encoded = mask_tools.encode(np.asfortranarray(RIGHT))
    common = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    return {
        "file_name": str(tmp_path / "a.png"),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 1,
        "annotations": [
            {**common, "id": 7, "bbox": [1, 1, 3, 4], "category_id": 2, "segmentation": [[1, 1, 4, 1, 4, 5, 1, 5]]},
            {**common, "id": 8, "bbox": [6, 0, 4, 3], "category_id": 0, "segmentation": encoded},
            {**common, "id": 9, "bbox": [0, 0, 9, 9], "category_id": 1, "iscrowd": 1},
        ],
    }


def masks_of(mapper: MaskMapper, record: dict) -> list[list]:
    return mapper(record)["instances"].gt_masks.tensor.int().tolist()


def test_masks_of_both_forms(record: dict) -> None:
    mapped = MaskMapper(augmentations=None, is_train=True)(record)["instances"]
    assert mapped.gt_masks.tensor.int().tolist() == [LEFT.tolist(), RIGHT.tolist()]
    assert mapped.gt_classes.tolist() == [2, 0]
    plain = DetrMapper(augmentations=None, is_train=True)(record)["instances"]
    assert torch.equal(mapped.gt_boxes.tensor, plain.gt_boxes.tensor) and not plain.has("gt_masks")
    record["annotations"][1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [36, 3, 3, 3, 3, 3, 3, 3, 3]}
    assert masks_of(MaskMapper(augmentations=None, is_train=True), record) == [LEFT.tolist(), RIGHT.tolist()]
    assert "instances" not in MaskMapper(augmentations=None, is_train=False)(record)


def test_masks_of_a_registered_coco_file(register: Callable[..., str], annotations: dict) -> None:
    """The loader gives the mapper records with their segmentations, although its parent reads boxes only."""
    for each in annotations["annotations"]:
        x, y, width, height = each["bbox"]
        each["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    mapper = MaskMapper(augmentations=None, is_train=True)
    loader = build_train_loader(dataset=register(annotations), mapper=mapper, total_batch_size=1, num_workers=0)
    assert next(iter(loader))[0]["instances"].has("gt_masks")


def test_masks_move_with_the_image(record: dict) -> None:
    """A flip, a doubling, and a crop that leaves nothing of the first object's mask, though a line of its box."""
    flip, double = T.RandomFlip(prob=1.0), T.Resize((2 * HEIGHT, 2 * WIDTH))
    found = MaskMapper(augmentations=[flip, double], is_train=True)(record)["instances"]
    expected = [np.kron(mask[:, ::-1], np.ones((2, 2))) for mask in (LEFT, RIGHT)]
    assert found.gt_masks.tensor.int().tolist() == [mask.tolist() for mask in expected]
    assert found.gt_masks.get_bounding_boxes().tensor.tolist() == found.gt_boxes.tensor.tolist()
    record["annotations"][0]["bbox"] = [1, 1, 6, 4]
    cut = MaskMapper(augmentations=[Crop()], is_train=True)(record)["instances"]
    assert cut.gt_classes.tolist() == [0] and cut.gt_masks.tensor.int().tolist() == [RIGHT[:, 6:].tolist()]


class Crop(T.Augmentation):
    """The right four columns."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the crop."""
        return T.CropTransform(6, 0, 4, HEIGHT)


def test_an_object_without_a_mask_is_named(record: dict) -> None:
    mapper = MaskMapper(augmentations=None, is_train=True)
    del record["annotations"][1]["segmentation"]
    with pytest.raises(DatasetError, match=r"^The annotation 8 of the image file .*a\.png has no segmentation"):
        mapper(record)
    record["annotations"][1]["segmentation"] = mask_tools.encode(np.asfortranarray(RIGHT.T))
    with pytest.raises(DatasetError, match=r"has the size \(10, 6\), but the image file .* has \(6, 10\)"):
        mapper(record)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 4, 1]],
        [1, 1, 4, 1, 4, 5],
        [[]],
        [[1, 1, 4, 1, 4, 5, 1]],
        [[1, 1, 4, 1, 4, 5], [1, 1, 4]],
        [["1", "1", "4", "1", "4", "5"]],
        RIGHT,
        "1",
        {"size": [HEIGHT, WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": [36, 3]},
    ],
)
def test_a_segmentation_that_cannot_be_read_is_named(record: dict, segmentation: object) -> None:
    """Also of records that no reader has checked, whose annotations may have no id."""
    record["annotations"][1]["segmentation"] = segmentation
    mapper = MaskMapper(augmentations=None, is_train=True)
    sentence = (
        r"^The segmentation of the annotation {} of the image file .*a\.png is neither a list of polygons .*correct"
    )
    with pytest.raises(DatasetError, match=sentence.format(8)):
        mapper(record)
    del record["annotations"][1]["id"]
    with pytest.raises(DatasetError, match=sentence.format(r"with the bbox \[6, 0, 4, 3\]")):
        mapper(record)


def test_polygons_and_sizes_as_arrays_and_tuples(record: dict) -> None:
    """detectron2 takes them in records that a function of one's own gives."""
    (polygon,) = record["annotations"][0]["segmentation"]
    encoded = {"size": (HEIGHT, WIDTH), "counts": [36, 3, 3, 3, 3, 3, 3, 3, 3]}
    for given in ([np.array(polygon)], (tuple(polygon),), [list(np.array(polygon, dtype=np.float32))]):
        record["annotations"][0]["segmentation"] = given
        record["annotations"][1]["segmentation"] = encoded
        assert masks_of(MaskMapper(augmentations=None, is_train=True), record) == [LEFT.tolist(), RIGHT.tolist()]


def write_panoptic(folder: Path) -> dict[str, Path]:
    """Write an image with a thing of an id above 65535 and two kinds of stuff, in COCO's form; stuff has low ids."""
    (folder / "segments").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "a.jpg")
    ids = np.full((HEIGHT, WIDTH), 300)
    ids[:, 5:] = 4
    ids[LEFT == 1] = 65536 * 2 + 7
    Image.fromarray(as_picture(ids)).save(folder / "segments" / "a.png")
    assert (read_picture(folder / "segments" / "a.png") == ids).all()
    segments = [
        {"id": 300, "category_id": 3, "iscrowd": 0, "area": 18, "bbox": [0, 0, 5, 6]},
        {"id": 131079, "category_id": 9, "iscrowd": 0, "area": 12, "bbox": [1, 1, 3, 4]},
        {"id": 4, "category_id": 1, "iscrowd": 0, "area": 30, "bbox": [5, 0, 5, 6]},
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "sky", "isthing": 0},
            {"id": 3, "name": "grass", "isthing": 0},
            {"id": 9, "name": "cat", "isthing": 1},
        ],
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    return {
        "panoptic_json": folder / "panoptic.json",
        "panoptic_root": folder / "segments",
        "image_root": folder,
    }


def test_panoptic_annotations_map_to_masks(tmp_path: Path) -> None:
    """Things are the first classes; the picture says the masks, and the file of the image need not be its name."""
    name = "panoptic_for_tests"
    register_panoptic(name, **write_panoptic(tmp_path))
    with forgotten(name):
        (record,) = load_dataset(name)
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == metadata.stuff_classes == ["cat", "sky", "grass"]
        assert metadata.thing_dataset_id_to_contiguous_id == {9: 0}
        assert metadata.stuff_dataset_id_to_contiguous_id == {1: 1, 3: 2}
        found = MaskMapper(augmentations=[T.RandomFlip(prob=1.0)], is_train=True)(record)["instances"]
        assert found.gt_classes.tolist() == [2, 0, 1]
        masks = found.gt_masks.tensor.int().numpy()[:, :, ::-1]
        assert (masks[1] == LEFT).all() and masks[2, :, 5:].all() and (masks.sum(0) == 1).all()
        assert load_dataset(name)[0]["annotations"] == record["annotations"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[", "cannot be read"),
        ("{}", "lacks images"),
        ('{"images":[],"annotations":[{}],"categories":[]}', "segments_"),
    ],
)
def test_a_file_that_is_not_panoptic_is_one_sentence(tmp_path: Path, content: str, match: str) -> None:
    files = write_panoptic(tmp_path)
    files["panoptic_json"].write_text(content)
    register_panoptic("broken_for_tests", **files)
    with forgotten("broken_for_tests"), pytest.raises(DatasetError, match=match):
        load_dataset("broken_for_tests")


def test_loaders_give_it_masks(tmp_path: Path) -> None:
    """Of a COCO file, whose records are without segmentations for a mapper of boxes."""
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    polygon = {"segmentation": [[1, 1, 4, 1, 4, 5, 1, 5]], "bbox": [1, 1, 3, 4], "area": 12, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **polygon}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    name = "masks_of_a_file_for_tests"
    register_coco_instances(name, {}, str(tmp_path / "a.json"), str(tmp_path))
    with forgotten(name):
        loader = build_train_loader(
            dataset=name, mapper=MaskMapper(augmentations=[], is_train=True), total_batch_size=1, num_workers=0
        )
        (image,) = next(iter(loader))
    assert image["instances"].gt_masks.tensor.int().tolist() == [LEFT.tolist()]
