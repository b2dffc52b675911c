"""One number for the size of images: `train.image_size`."""

from typing import Any

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data.transforms import ResizeShortestEdge
from omegaconf import DictConfig, OmegaConf

from align_detr.data.image_size import follow_test_mapper, set_image_size
from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config
from support.shrink import config

OBJECTS = {"allow_objects": True}


def sizes(augmentations: Any) -> list[dict[str, Any]]:
    """Return the numbers of a list of augmentations."""
    plain = [OmegaConf.to_container(node) for node in augmentations]
    return [{k: v for k, v in x.items() if k not in ("_target_", "sample_style", "crop_type")} for x in plain]


def test_sizes_of_the_coco_recipe() -> None:
    """At half of 800 every number of pixels is half, in training, crops and evaluation."""
    cfg = load_config("detr/detr_r50_500ep.py", ["train.image_size=400"])
    mapper, test = cfg.dataloader.train.mapper, cfg.dataloader.test.mapper
    resized = {"short_edge_length": list(range(240, 401, 16)), "max_size": 666}
    assert sizes(test.augmentations) == [{"short_edge_length": [400, 400], "max_size": 666}]
    assert sizes(mapper.augmentations) == [{}, resized]
    with_crop = [{}, {"short_edge_length": [200, 250, 300]}, {"crop_size": [192, 300]}, resized]
    assert sizes(mapper.augmentations_with_crop) == with_crop
    instantiate(mapper), instantiate(test)
    again = cfg.dataloader.copy()
    set_image_size(again, 400)
    assert OmegaConf.to_container(again, resolve=False) == OmegaConf.to_container(cfg.dataloader, resolve=False)


@pytest.mark.parametrize(
    "name", ["quickstart/digits.py", "TSP/tsp_rcnn_r50_36ep.py", "FasterRCNN/faster_rcnn_r50_fpn_36ep.py"]
)
def test_other_data(name: str) -> None:
    """What evaluates, and the largest side that trains, is the number; digits, which are not resized, are then."""
    loaders = config(name).dataloader.copy()
    set_image_size(loaders, 96)
    for mapper in (loaders.train.mapper, loaders.test.mapper):
        last = mapper.augmentations[-1]
        side = last.short_edge_length
        assert (side if isinstance(side, int) else max(side)) == 96 and last.max_size == 160
        instantiate(mapper)


def test_training_follows_the_test_mapper_of_a_file() -> None:
    """Short sides of 256 to 320, of 320 in evaluation, become 51 to 64 of 64; the longest side is the file's."""
    dataloader = config("quickstart/your_data.py").dataloader.copy()
    train, resizing = dataloader.train.mapper, L(ResizeShortestEdge)(short_edge_length=[64, 64], max_size=107)
    assert (
        max(train.augmentations[-1].short_edge_length)
        == 320
        == dataloader.test.mapper.augmentations[0].short_edge_length[0]
    )
    follow_test_mapper(
        dataloader, OmegaConf.create({"augmentations": [resizing], "image_format": "BGR"}, flags=OBJECTS)
    )
    for name in ("augmentations", "augmentations_with_crop"):
        last = train[name][-1]
        assert max(last.short_edge_length) == 64 and min(last.short_edge_length) == 51 and last.max_size == 107
    assert train.image_format == "BGR" and dataloader.test.mapper.augmentations[0].short_edge_length == [64, 64]


@pytest.mark.parametrize("mapper", [{"augmentations": []}, {}])
def test_training_does_not_resize_where_the_file_does_not(mapper: dict[str, Any]) -> None:
    """What it does beside stays; crops, which resize on both sides, do not."""
    dataloader = config("quickstart/your_data.py").dataloader.copy()
    follow_test_mapper(dataloader, OmegaConf.create(mapper))
    train = dataloader.train.mapper
    assert sizes(train.augmentations) == [{}] and train.augmentations_with_crop is None
    assert dataloader.test.mapper == mapper


def loaders(**train: Any) -> DictConfig:
    return OmegaConf.create({"train": train, "test": None})


@pytest.mark.parametrize("size", [0, -5, 1.5, "480", [480, 640], True])
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises(ConfigError, match="must be a number of pixels"):
        set_image_size(loaders(mapper={"augmentations": []}), size)


def test_a_mapper_without_augmentations() -> None:
    with pytest.raises(ConfigError, match=r"dataloader.train.mapper has none: set the sizes in the mapper itself"):
        set_image_size(loaders(mapper="map_record"), 480)


def test_a_list_that_two_mappers_share_is_scaled_once() -> None:
    """Fractions of an image, and a longest side without a limit, stay as they are."""
    shared = [{"short_edge_length": 200, "max_size": 2**31 - 1}]
    train = {"mapper": {"augmentations": "${...test.mapper.augmentations}", "augmentations_with_crop": None}}
    nodes = OmegaConf.create({"train": train, "test": {"mapper": {"augmentations": shared}}})
    nodes.train.mapper.augmentations_with_crop = [{"crop_size": [0.5, 0.9]}, {"short_edge_length": [100, 200]}]
    set_image_size(nodes, 100)
    assert sizes(nodes.test.mapper.augmentations) == [{"short_edge_length": 100, "max_size": 2**31 - 1}]
    assert sizes(nodes.train.mapper.augmentations_with_crop) == [
        {"crop_size": [0.5, 0.9]},
        {"short_edge_length": [50, 100]},
    ]
